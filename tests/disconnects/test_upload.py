"""Disconnects during an upload, also one of which the backend takes nothing."""

from __future__ import annotations

import asyncio

import pytest

from llamactl.server.web.disconnect_watch import WatchedTransport
from proxy.body.body import WHOLE_BYTES
from tests.disconnects.conftest import Disconnect, close, half_close, reset, until_nothing_is_left
from tests.proxy.conftest import TableGateway
from tests.support.until import until_async
from tests.support.wire import RawBackend, RawClient, Session

ANY = b"/api/v1/instances/demo/proxy"
SIZE = 8 * 2**20
MUCH = 200 * 2**20


@pytest.mark.parametrize("part", [WHOLE_BYTES // 2, SIZE // 2])
async def test_disconnect_in_the_middle_closes_the_request_to_the_backend(
    client: RawClient, backend: RawBackend, gateway: TableGateway, part: int
) -> None:
    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % SIZE)
    client.send(b"x" * part)
    await until_async(lambda: backend.connections == 1, "the upload begun")
    client.disconnect()
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")
    await until_nothing_is_left(gateway)


@pytest.fixture
def may_read(backend: RawBackend) -> asyncio.Event:
    """The backend takes nothing until this is set."""
    may_read = asyncio.Event()

    async def play(session: Session) -> None:
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await may_read.wait()

    backend.script = play
    return may_read


async def test_reset_behind_full_buffers_ends_the_request(
    client: RawClient, gateway: TableGateway, may_read: asyncio.Event
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
    reset(client)
    await until_nothing_is_left(gateway)
    may_read.set()


@pytest.mark.parametrize("disconnect", [close, half_close], ids=lambda way: way.__name__)
async def test_end_of_an_upload_that_the_backend_does_not_take_ends_the_request(
    client: RawClient,
    gateway: TableGateway,
    may_read: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    disconnect: Disconnect,
) -> None:
    """The FIN arrives only as long as the system's buffers have space: so reading pauses first."""
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
    disconnect(client)
    await until_nothing_is_left(gateway)
    may_read.set()


async def test_connected_client_of_an_upload_that_is_taken_late_is_answered(
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
