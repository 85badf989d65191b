"""Errors of requests that the web process refuses before the application sees them."""

from __future__ import annotations

from http import HTTPStatus

from llamactl.core.error_format import render
from llamactl.core.errors import InvalidRequest, LlamactlError


class MalformedRequest(InvalidRequest):
    """A request that breaks the rules of HTTP/1.1 or of a WebSocket handshake."""

    def __init__(self, details: str = "this is no valid HTTP/1.1 request") -> None:
        super().__init__(details)


class HeadTooLarge(InvalidRequest):
    """A head, or a header of it, beyond its limit."""

    status = 431


class RequestTimedOut(InvalidRequest):
    """A request that was not received in time."""

    status = 408

    def __init__(self) -> None:
        super().__init__("the rest of the request did not come in time")


class HandshakeTimedOut(LlamactlError):
    """A WebSocket handshake that the application did not answer in time."""

    code = "handshake_timed_out"
    status = 504

    def __init__(self) -> None:
        super().__init__("the WebSocket handshake was not answered in time")


class TooManyConnections(LlamactlError):
    """A connection beyond the limit of the process, or of one client address."""

    code = "too_many_connections"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "llamactl has too many open connections; close some, raise its limit of open files"
            " (ulimit -n), or raise server.web_processes",
            retry_after=5,
        )


def response_to(path: str, error: LlamactlError) -> bytes:
    """The whole response that refuses a request to ``path`` and closes its connection."""
    status, headers, body = render(path, error)
    phrase = HTTPStatus(status).phrase
    lines = [b"%b: %b\r\n" % pair for pair in [*headers, (b"connection", b"close")]]
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, phrase.encode(), b"".join(lines), body)
