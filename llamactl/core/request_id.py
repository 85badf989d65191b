"""Ids of requests: ours, the client's own, and the request that the current log line belongs to.

Each request gets an id of 128 random bits, which its client reads in ``X-Request-Id`` (clients of
Anthropic's API in ``Request-Id`` too) and the operator in the log. The client's own
``X-Request-Id`` is kept beside it: two clients may send the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Protocol

HEADER = b"x-request-id"
ANTHROPIC_HEADER = b"request-id"

_USABLE = re.compile(rb"[!-~]{1,128}")
"""128 visible ASCII characters at most: no blank or line end that would forge a field of a log."""


class LoggedRequest(Protocol):
    """A request that log lines are about."""

    def log_fields(self) -> dict[str, str]:
        """The fields of a log line: ``request_id``, and others where they are known."""


current_request: ContextVar[LoggedRequest | None] = ContextVar("llamactl.request", default=None)
"""The request of the current task. ``llamactl.logging`` appends its fields to each line, so that no
caller has to pass them on."""


_POOL_IDS = 256
_pool: list[str] = []
"""Ids that are made together: one at a time costs a third of a microsecond."""
os.register_at_fork(after_in_child=_pool.clear)


def new_id() -> str:
    """Return 128 random bits in hex."""
    try:
        return _pool.pop()
    except IndexError:
        digits = os.urandom(16 * _POOL_IDS).hex()
        _pool.extend(digits[at : at + 32] for at in range(32, len(digits), 32))
        return digits[:32]


def client_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, bool]:
    """Return the client's own id, and whether it is a client of Anthropic's API.

    The id is empty for an unusable one, and ``None`` without one. Clients of Anthropic's API send
    its version. One pass, which each request takes.
    """
    request_id, is_anthropic = None, False
    for name, value in headers:
        if name == HEADER:
            is_usable = request_id is None and _USABLE.fullmatch(value) is not None
            # Of two ids neither is the client's: a proxy in front has added one.
            request_id = value.decode() if is_usable else ""
        elif name == b"anthropic-version":
            is_anthropic = True
    return request_id, is_anthropic


def id_headers(request_id: str, *, is_anthropic: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response that tell its client the id."""
    encoded = request_id.encode()
    if is_anthropic:
        return [(HEADER, encoded), (ANTHROPIC_HEADER, encoded)]
    return [(HEADER, encoded)]
