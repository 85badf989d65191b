"""How do the parts of an answer leave together? A transport that writes once a turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any


class Coalescing:
    """A transport whose writes of one turn of the event loop leave in one system call.

    uvicorn writes a response's head and its body apart; for a short answer that is a tenth of what
    it costs. Nothing is held longer than until the loop has run what is ready now.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def _flush(self) -> None:
        held = self._held
        if held:
            self._held = []
            if self._transport.is_closing():
                # The client left within this turn; uvloop's transport would raise.
                return
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._flush()
        self._transport.set_protocol(protocol)
