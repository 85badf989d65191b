"""Who leaves while a backend takes nothing of an upload is missed, though nothing is read."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from llamactl.server.web.disconnect_watch import WatchedTransport
from tests.proxy.conftest import TableGateway
from tests.support.until import until_async
from tests.support.wire import RawBackend, RawClient, Session

ANY = b"/api/v1/instances/demo/proxy"
MUCH = 200 * 2**20


@pytest.fixture
def release(backend: RawBackend) -> asyncio.Event:
    """The backend takes nothing until this is set."""
    release = asyncio.Event()

    async def play(session: Session) -> None:
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()

    backend.script = play
    return release


async def test_who_resets_an_upload_that_is_stuck_ends_it(
    client: RawClient, backend: RawBackend, gateway: TableGateway, release: asyncio.Event
) -> None:
    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % MUCH)
    piece = b"x" * 2**20
    try:
        while True:
            client.send(piece)
            async with asyncio.timeout(1):
                await client.writer.drain()
    except TimeoutError:
        pass
    assert gateway.in_flight.count("demo") == 1
    connection = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.disconnect()
    await until_async(lambda: gateway.in_flight.count("demo") == 0, "nothing in flight")
    release.set()


@pytest.mark.parametrize("way", ["close", "half-close"])
async def test_who_ends_an_upload_that_is_stuck_ends_the_request(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    release: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """As far as its end reaches us: it comes behind what our buffers have no room for."""
    paused: list[WatchedTransport] = []
    pause_reading = WatchedTransport.pause_reading

    def pause(self: WatchedTransport) -> None:
        paused.append(self)
        pause_reading(self)

    monkeypatch.setattr(WatchedTransport, "pause_reading", pause)

    def is_paused() -> bool:
        return bool(paused) and paused[-1]._is_paused

    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % MUCH)
    while not is_paused():
        client.send(b"x" * 2**15)
        await client.writer.drain()
        for _ in range(30):
            await asyncio.sleep(0.01)
            if not is_paused():
                break
    if way == "close":
        client.writer.close()
    else:
        client.writer.write_eof()
    await until_async(lambda: gateway.in_flight.count("demo") == 0, "nothing in flight")
    release.set()


async def test_who_waits_in_an_upload_that_is_stuck_is_left_alone(
    client: RawClient, backend: RawBackend
) -> None:
    size = 32 * 2**20

    async def play(session: Session) -> None:
        transport = session.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(2.5)
        transport.resume_reading()  # type: ignore[attr-defined]
        message = await session.request()
        await session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%8d" % len(message.body))

    backend.script = play
    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % size)
    client.send(b"x" * size)
    assert (await client.answer()).body == b"%8d" % size
