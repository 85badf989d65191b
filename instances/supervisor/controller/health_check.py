"""Health check of a backend over HTTP.

``is_ready`` blocks until its timeouts, so it is called off the supervisor's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import requests

CONNECT_SECONDS = 0.5
READ_SECONDS = 2.0
"""A hung backend still accepts connections; a busy llama.cpp answers within 5 ms."""

SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0


def is_ready(origin: str, paths: Sequence[str], key: str) -> bool:
    """Whether the backend at ``origin`` (``http://host:port``) is ready to answer requests.

    The first of ``paths`` that is not 404 decides: 200 is ready, and so are 401 and 403 (a backend
    that asks for another key is up); 503 is loading. Any other status is not ready, nor is a
    failed connection.
    """
    with requests.Session() as session:
        # A call within the node: neither the proxies nor the .netrc of the worker's user apply.
        session.trust_env = False
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for path in paths:
            try:
                with session.get(
                    origin + path,
                    headers=headers,
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                    allow_redirects=False,
                    stream=True,  # the status is enough; a body may be long
                ) as response:
                    status = response.status_code
            except requests.RequestException:
                return False
            if status != HTTPStatus.NOT_FOUND:
                return status in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return False


def pause_before_next(elapsed_seconds: float) -> float:
    """Return the seconds until the next startup probe, after ``elapsed_seconds`` of starting.

    A tenth of the elapsed time, within limits: a quick start is noticed at once, and a backend that
    loads for minutes is not probed ten times a second.
    """
    return min(max(elapsed_seconds / 10, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
