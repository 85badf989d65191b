"""Responses to HTTP/1.1 clients, with a usual head checked as a whole.

uvicorn searches each header of a response with two regular expressions, which is a tenth of the
cost of a short response. A head that is checked at once costs a quarter of that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from string import ascii_lowercase, digits
from typing import Any, cast

from uvicorn._types import (
    ASGIReceiveEvent,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
)
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_NAME_BYTES = f"!#$%&'*+-.^_`|~{digits}{ascii_lowercase}".encode()
"""RFC 9110, section 5.6.2, without capitals, which would hide a name from the lookups."""
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))

_UNUSUAL = frozenset((b"connection", b"transfer-encoding"))
_WITHOUT_BODY = (204, 304)


class _Sent:
    """The awaitable of a message that has been sent; a coroutine costs more than the message."""

    def __await__(self) -> Generator[Any, None, None]:
        return cast("Generator[Any, None, None]", iter(()))


_SENT = _Sent()


class Http11Cycle(RequestResponseCycle):
    """An HTTP/1.1 request with its response; uvicorn sends a response that is unusual."""

    _is_usual = False
    """Whether this class has sent the head of the response, and so sends the body too."""

    async def receive(self) -> ASGIReceiveEvent:
        """Receive the body, or the disconnect of the client."""
        if not self.body or self.more_body or self.disconnected or self.response_complete:
            return await super().receive()
        # The usual request: its whole body has come with its head, so there is nothing to wait for.
        body, self.body = bytes(self.body), bytearray()
        self.waiting_for_100_continue = False
        self.flow.resume_reading()
        self.message_event.clear()
        return {"type": "http.request", "body": body, "more_body": False}

    def send(self, message: ASGISendEvent) -> Awaitable[None]:  # type: ignore[override]
        """Send a message of the application. Raises RuntimeError as uvicorn does."""
        if not (self.flow.write_paused or self.disconnected or self.response_complete):
            if self._is_usual:
                if message["type"] == "http.response.body" and self._send_body(message):
                    return _SENT
            elif message["type"] == "http.response.start" and self._send_head(message):
                return _SENT
        return super().send(message)

    def _send_head(self, message: HTTPResponseStartEvent) -> bool:
        """Send the head, unless it is unusual."""
        status, headers = message["status"], [*self.default_headers, *message.get("headers", ())]
        named = dict(headers)
        lines = b"\r\n".join(map(b": ".join, headers))
        length = named.get(b"content-length")
        if (
            self.response_started
            or not self.keep_alive
            or status in _WITHOUT_BODY
            or self.scope["method"] == "HEAD"
            or not _UNUSUAL.isdisjoint(named)
            # Not in a name, or in a value.
            or b"".join(named).translate(None, _NAME_BYTES)
            or len(lines.translate(None, _CONTROLS)) != len(lines)
            or not lines.count(b"\r") == lines.count(b"\n") == len(headers) - 1
        ):
            return False
        if length is None:
            self.chunked_encoding = True
            end = b"\r\ntransfer-encoding: chunked\r\n\r\n"
        elif length.isdigit() and len(named) == len(headers):
            self.chunked_encoding = False
            self.expected_content_length = int(length)
            end = b"\r\n\r\n"
        else:
            return False
        self.response_started = self._is_usual = True
        self.waiting_for_100_continue = False
        self.transport.write(STATUS_LINE[status] + lines + end)
        return True

    def _send_body(self, message: HTTPResponseBodyEvent) -> bool:
        """Send a piece of the body, unless its length is wrong."""
        piece, is_last = message.get("body", b""), not message.get("more_body", False)
        if self.chunked_encoding:
            if piece:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            if is_last:
                piece += b"0\r\n\r\n"
        else:
            left = self.expected_content_length - len(piece)
            if left < 0 or (is_last and left):
                return False
            self.expected_content_length = left
        self.transport.write(piece)
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
        return True
