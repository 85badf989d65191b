"""How does a web process speak WebSocket with its clients? As uvicorn does, and notices who left.

A client that leaves while an application takes no more messages is behind those; see ``presence``.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from llamactl.core.disconnect_event import EXTENSION
from llamactl.server.web.disconnect_watch import Watched


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One client's WebSocket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._departure = asyncio.Event()
        self._is_shut_down = False
        if isinstance(transport, Watched):
            transport.knock = self._knock

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._is_shut_down:
            self._departure.set()

    def shutdown(self) -> None:
        # Then it is we who leave, which the application is told in another way.
        self._is_shut_down = True
        super().shutdown()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][EXTENSION] = {"event": self._departure}

    def _knock(self) -> None:
        """A pong that answers no ping: RFC 6455, section 5.5.3, has it as a sign of life.

        The system of a client that is gone answers it with a reset, even where it can't get rid of
        the end of its connection. What was sent before and has not left yet does that as well.
        """
        if self.conn.state is State.OPEN and not self.transport.get_write_buffer_size():
            self.conn.send_pong(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))
