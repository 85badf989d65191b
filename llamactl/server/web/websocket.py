"""WebSocket protocol of the web process: uvicorn's, with disconnect detection.

A client's disconnect lies behind the messages that the application has not taken yet; see
``disconnect_watch``.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from llamactl.core.disconnect_event import EXTENSION
from llamactl.server.web.disconnect_watch import WatchedTransport


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The WebSocket of one client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._disconnected = asyncio.Event()
        self._is_shut_down = False
        if isinstance(transport, WatchedTransport):
            transport.send_probe = self._send_unsolicited_pong

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._is_shut_down:
            self._disconnected.set()

    def shutdown(self) -> None:
        # The server's own close is no disconnect: the application gets a close code for it.
        self._is_shut_down = True
        super().shutdown()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][EXTENSION] = {"event": self._disconnected}

    def _send_unsolicited_pong(self) -> None:
        """Send a pong without a ping, a one-way heartbeat (RFC 6455, section 5.5.3).

        The kernel of a disconnected client answers the pong with a reset, even where its FIN can't
        be sent yet. Bytes that are still in our send buffer have the same effect, so no pong is
        added to them.
        """
        if self.conn.state is State.OPEN and not self.transport.get_write_buffer_size():
            self.conn.send_pong(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))
