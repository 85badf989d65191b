"""Responses to HTTP/1.0 clients: the end of the connection is the end of the response.

uvicorn sends an HTTP/1.0 client ``Transfer-Encoding: chunked``, which HTTP/1.0 does not have: the
client would take the chunk sizes for a part of the body (RFC 9112, section 6.1).
"""

from __future__ import annotations

import socket
import struct
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# SO_LINGER with a timeout of 0: a close discards unsent bytes and sends a reset.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ORDERLY_CLOSE = struct.pack("ii", 0, 0)


class Http10Cycle(RequestResponseCycle):
    """An HTTP/1.0 request with its response.

    A response without a length is streamed, and the end of the connection is its end. An HTTP/1.0
    client would take an early close for a complete response. Until the response is complete, the
    socket is therefore set to close with a reset, whichever side of the code closes it, and even
    when this process is killed.
    """

    _ends_with_connection = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keep_alive = False
        # An HTTP/1.0 client would take 100 Continue for the response (RFC 9110, section 10.1.1).
        self.waiting_for_100_continue = False

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, value)
                for name, value in message.get("headers", ())
                if name.lower() != b"transfer-encoding"
            ]
            message = {**message, "headers": headers}
            has_length = any(name.lower() == b"content-length" for name, _ in headers)
            has_body = self.scope["method"] != "HEAD" and message["status"] not in (204, 304)
            if has_body and not has_length:
                self._ends_with_connection = True
                # uvicorn would choose chunks.
                self.chunked_encoding = False
                self._set_close_mode(_RESET_ON_CLOSE)
        elif message["type"] == "http.response.body" and self._ends_with_connection:
            # uvicorn checks each body message against a length; without one, any size is right.
            self.expected_content_length = len(message.get("body", b""))
            if not message.get("more_body", False):
                # uvicorn drains after this method; the response is incomplete until then.
                if self.flow.write_paused and not self.disconnected:
                    await self.flow.drain()
                self._set_close_mode(_ORDERLY_CLOSE)
        await super().send(message)

    def _set_close_mode(self, linger: bytes) -> None:
        """Set how the kernel closes this connection from now on."""
        # The descriptor of a closed connection may belong to another connection by now.
        if not self.disconnected and not self.transport.is_closing():
            connection = cast(socket.socket, self.transport.get_extra_info("socket"))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
