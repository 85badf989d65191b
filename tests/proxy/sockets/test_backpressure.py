"""Backpressure: a slow reader makes the sender wait, and holds one buffer of memory."""

from __future__ import annotations

import asyncio
import tracemalloc

from tests.proxy.conftest import TableGateway
from tests.support.until import until_async
from tests.support.wire import RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MUCH = 200 * 2**20
PIECE = b"10000\r\n" + b"x" * 2**16 + b"\r\n"


class Flood:
    """Sends without end, and counts the bytes sent."""

    def __init__(self, backend: RawBackend) -> None:
        self.sent = 0
        backend.script = self.play

    async def play(self, session: Session) -> None:
        await session.request()
        await session.send(EVENTS)
        while self.sent < MUCH:
            await session.send(PIECE)
            self.sent += 2**16

    async def until_blocked(self) -> int:
        before = -1
        while before != self.sent:
            before = self.sent
            await asyncio.sleep(0.3)
        return self.sent


async def test_slow_reader_holds_a_buffer_however_much_the_backend_sends(
    client: RawClient, backend: RawBackend
) -> None:
    flood = Flood(backend)
    transport = client.writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]
    tracemalloc.start()
    try:
        client.post(CHAT, MODEL)
        await until_async(lambda: flood.sent > 0, "the flood begun")
        # It should make the backend wait: the bytes sent are in the kernel's buffers.
        assert await flood.until_blocked() < MUCH // 4
        sent = flood.sent
        held, _ = tracemalloc.get_traced_memory()
        assert held < 8 * 2**20
        transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(5):
            await client.reader.read(1000)
            await asyncio.sleep(0.05)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert flood.sent - sent < MUCH // 4


async def test_backend_that_does_not_read_makes_the_uploader_wait(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    release = asyncio.Event()

    async def play(session: Session) -> None:
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()

    backend.script = play
    tracemalloc.start()
    try:
        client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % MUCH)
        sent = 0
        piece = b"x" * 2**20
        try:
            while sent < MUCH:
                client.send(piece)
                async with asyncio.timeout(1):
                    await client.writer.drain()
                sent += len(piece)
        except TimeoutError:
            pass
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent < MUCH // 4
    assert held < 8 * 2**20
    release.set()
