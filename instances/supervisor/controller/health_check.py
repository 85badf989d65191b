"""Is a backend ready to answer?

``is_ready`` blocks for as long as its timeouts allow, so it is called off the supervisor's thread.
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
    """Whether the backend at ``origin`` (``http://host:port``) says that it can answer requests.

    The first of ``paths`` that is not 404 decides: 200 is ready, and so are 401 and 403 (whoever
    asks for another key is up); 503 is loading. Anything else, and no answer at all, is not ready.
    """
    with requests.Session() as session:
        # Neither proxies nor .netrc of the worker's user: this is a call within the node.
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
    """Seconds until the next probe of a backend that has been starting for ``elapsed_seconds``.

    A tenth of the time it has taken so far, within limits: a quick start is seen at once, and one
    that loads for minutes is not bothered ten times a second.
    """
    return min(max(elapsed_seconds / 10, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
