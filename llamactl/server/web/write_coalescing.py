"""Write coalescing: a transport that sends the writes of one event-loop turn together."""

from __future__ import annotations

import asyncio
from typing import Any

LARGE_BYTES = 16 * 1024
"""A piece that is sent at once, with the pieces before it: its system call is cheap by comparison.
"""

MAX_PIECES = 64
"""Pieces that wait at most. An application that sends without a pause, as Django sends a long
response, would otherwise fill the memory: the transport asks it to wait only for what it got."""


class CoalescingTransport:
    """A transport that sends all writes of one turn of the event loop in one system call.

    uvicorn writes a response's head and its body separately; for a short response the second write
    is a tenth of the response's cost. A short write is held until the loop has run the callbacks
    that are ready now, and no longer.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing
        """Asked for each response, so not by way of ``__getattr__``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        held = self._held
        if not held:
            self._loop.call_soon(self._flush)
        held.append(data)
        if len(data) > LARGE_BYTES or len(held) > MAX_PIECES:
            self._flush()

    def _flush(self) -> None:
        held = self._held
        if held:
            self._held = []
            if self.is_closing():
                # The client disconnected within this turn; a write to uvloop's transport raises.
                return
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._flush()
        self._transport.set_protocol(protocol)
