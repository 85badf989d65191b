"""How does an answer end for a client that speaks HTTP/1.0? With the connection, if not before.

uvicorn sends such a client ``Transfer-Encoding: chunked``, which it does not know: it would take
the sizes of the chunks for a part of the answer (RFC 9112, section 6.1).
"""

from __future__ import annotations

import socket
import struct
from typing import cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# A close that leaves nobody to wait for what is unsent, and says so with a reset.
_WITH_RESET = struct.pack("ii", 1, 0)
_IN_ORDER = struct.pack("ii", 0, 0)


class Http10Cycle(RequestResponseCycle):
    """A request of HTTP/1.0, with its answer.

    An answer without a length goes out as it comes, and ends where the connection does. For the
    client a connection that closes early would be a whole answer; so until it is whole, the system
    is told to close with a reset, whoever closes, and even when this process dies.
    """

    _ends_with_connection = False

    @classmethod
    def take_over(cls, cycle: RequestResponseCycle) -> None:
        """Make it one of these. uvicorn has no place to choose the class; nothing has run yet."""
        cycle.__class__ = cls
        cycle.keep_alive = False
        # It would take that for the answer (RFC 9110, section 10.1.1).
        cycle.waiting_for_100_continue = False

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
                # Else uvicorn chooses chunks.
                self.chunked_encoding = False
                self._close(_WITH_RESET)
        elif message["type"] == "http.response.body" and self._ends_with_connection:
            # As much as there is; what would be too much or too little can't be known.
            self.expected_content_length = len(message.get("body", b""))
            if not message.get("more_body", False):
                # uvicorn would wait for that after us, and the answer is not whole meanwhile.
                if self.flow.write_paused and not self.disconnected:
                    await self.flow.drain()
                self._close(_IN_ORDER)
        await super().send(message)

    def _close(self, how: bytes) -> None:
        """From now on the connection closes in this way."""
        # The descriptor of one that is closed may be another connection's by now.
        if not self.disconnected and not self.transport.is_closing():
            connection = cast(socket.socket, self.transport.get_extra_info("socket"))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
