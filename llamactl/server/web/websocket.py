"""WebSocket protocol of the web process: uvicorn's, with disconnect detection and a deadline.

A client's disconnect lies behind the messages that the application has not taken yet; see
``disconnect_watch``. uvicorn waits without a timeout for the application's answer to a handshake,
and parses all that it gets at once: 256,000 bytes may be 43,000 frames of 10 microseconds each.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from llamactl.core.disconnect_event import EXTENSION
from llamactl.core.parted_input import PartedInput
from llamactl.core.websocket_limits import DECODED_BYTES, UTF8_EXTENSION
from llamactl.server.web.disconnect_watch import WatchedTransport
from llamactl.server.web.errors import HandshakeTimedOut, response_to

PART_BYTES = 2 * 1024
"""The input that is parsed at once: up to 4 ms for frames without a payload."""


class WebSocketProtocol(PartedInput, WebSocketsSansIOProtocol):
    """The WebSocket of one client."""

    part_bytes = PART_BYTES

    handshake_seconds = 60.0
    """Timeout of the application's answer to the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._disconnected = asyncio.Event()
        self._is_shut_down = False
        if isinstance(transport, WatchedTransport):
            transport.send_probe = self._send_unsolicited_pong

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._drop_held()
        if self._deadline is not None:
            self._deadline.cancel()
        if isinstance(self.transport, WatchedTransport):
            if self.transport.on_lost is not None:
                self.transport.on_lost()
            # They would keep the connection's objects until the garbage collector runs.
            self.transport.on_lost = self.transport.send_probe = None
        if not self._is_shut_down:
            self._disconnected.set()

    def shutdown(self) -> None:
        # The server's own close is no disconnect: the application gets a close code for it.
        self._is_shut_down = True
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        # The head of the handshake comes from HttpProtocol.
        if not self.handshake_initiated or (len(data) <= PART_BYTES and self._may_parse()):
            self._parse(data)
        else:
            self._parse_in_parts(data)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)

    def _held_transport(self) -> WatchedTransport:
        return cast(WatchedTransport, self.transport)

    def _may_parse(self) -> bool:
        """Whether the application takes a message, and the client the answers to its pings.

        Before the handshake is answered, the client may have no key.
        """
        return self.handshake_complete and not self.read_paused and self.writable.is_set()

    def pause_writing(self) -> None:
        super().pause_writing()
        if isinstance(self.transport, WatchedTransport):
            self.transport.watch_writes()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    async def send(self, message: ASGISendEvent) -> None:
        utf8 = cast(dict[str, bytes], message).get("utf8")
        if utf8 is None:
            await super().send(message)
        else:
            await self._send_utf8(utf8)
        self._go_on()

    async def _send_utf8(self, utf8: bytes) -> None:
        await self.writable.wait()
        if self.disconnected or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        self.conn.send_text(utf8)
        self.transport.write(b"".join(self.conn.data_to_send()))

    def send_receive_event_to_app(self) -> None:
        """Queue a message. A large text is not decoded, see ``DECODED_BYTES``."""
        is_large = self.curr_msg_data_type == "text" and len(self.frames[0]) > DECODED_BYTES
        if not is_large or self.close_sent:
            super().send_receive_event_to_app()
            return
        utf8, self.frames = self.frames[0], []
        message = {"type": "websocket.receive", "utf8": utf8}
        self.queue.put_nowait(cast(ASGIReceiveEvent, message))
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def handle_cont(self, event: Frame) -> None:
        """Gather a message in one buffer: a list takes 40 bytes for a frame without a payload."""
        first: object = self.frames[0]
        gathered = first if isinstance(first, bytearray) else bytearray(self.frames[0])
        gathered += event.data
        self.frames = [cast(bytes, gathered)]
        if event.fin:
            self.send_receive_event_to_app()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][EXTENSION] = {"event": self._disconnected}
            self.scope["extensions"][UTF8_EXTENSION] = {}
            self._deadline = self.loop.call_later(self.handshake_seconds, self._on_deadline)

    def _on_deadline(self) -> None:
        """Refuse a handshake that the application has not answered in time."""
        self._deadline = None
        if not self.handshake_complete:
            self.transport.write(response_to(self.scope["path"], HandshakeTimedOut()))
            self.transport.close()

    def _send_unsolicited_pong(self) -> None:
        """Send a pong without a ping, a one-way heartbeat (RFC 6455, section 5.5.3).

        The kernel of a disconnected client answers the pong with a reset, even where its FIN can't
        be sent yet. Bytes that are still in our send buffer have the same effect, so no pong is
        added to them.
        """
        if self.conn.state is State.OPEN and not self.transport.get_write_buffer_size():
            self.conn.send_pong(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))
