"""A backend that speaks WebSocket, for tests of both ends of the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web


@dataclass
class SocketBackend:
    """Echoes until the test has it do something else; remembers how it ended."""

    script: Callable[[web.WebSocketResponse], Awaitable[None]] | None = None
    subprotocols: tuple[str, ...] = ()
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    close_code: int | None = None
    last: aiohttp.WSMessage | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            protocols=self.subprotocols, autoclose=False, max_msg_size=2**26
        )
        await socket.prepare(request)
        try:
            await (self.script or self.echo)(socket)
        except ConnectionError:
            pass
        finally:
            self.close_code = socket.close_code
            self.ended.set()
        return socket

    async def echo(self, socket: web.WebSocketResponse) -> None:
        while True:
            self.last = await socket.receive()
            if self.last.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(self.last.data)
            elif self.last.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(self.last.data)
            else:
                await socket.close()
                return

    async def end(self) -> None:
        async with asyncio.timeout(10):
            await self.ended.wait()


async def until_it_stalls(count: Callable[[], int]) -> int:
    """Wait until the number has stopped rising, and return it."""
    last = -1
    async with asyncio.timeout(30):
        while last != (last := count()) or not last:
            await asyncio.sleep(0.3)
    return last
