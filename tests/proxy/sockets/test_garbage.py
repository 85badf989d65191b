"""What a request leaves behind is freed at once: the garbage collector comes seldom in production.

A cycle for each request would hold its body until fifty thousand other objects are left; see
``proxy.asgi``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest

from proxy.body.body import WHOLE_BYTES
from tests.proxy.conftest import TableGateway, make_target
from tests.proxy.sockets.conftest import Connect
from tests.support.until import until_async
from tests.support.wire import OK, Play, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TIMES = 20


@pytest.fixture(autouse=True)
def no_records() -> Iterator[None]:
    """pytest keeps the records of the log, and with them the errors that they name."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def limits(gateway: TableGateway) -> None:
    """As far away as in production."""
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=300, idle=600)


async def garbage_of(what: Callable[[], Awaitable[object]]) -> int:
    """How many objects the collector finds when it was done so many times."""
    await what()
    await asyncio.sleep(0.05)
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            await what()
        await asyncio.sleep(0.05)
        return gc.collect()
    finally:
        gc.enable()


def playing(*pieces: bytes, seconds: float = 0.0) -> Play:
    async def play(session: Session) -> None:
        await session.request()
        await asyncio.sleep(seconds)
        await session.send(*pieces)

    return play


async def dies_every_other_time(session: Session) -> None:
    await session.request()
    if len(session.backend.requests) % 2 == 0:
        await session.send(OK)


@pytest.mark.parametrize("size", [0, 2 * WHOLE_BYTES], ids=["small", "upload"])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        (playing(OK), 200),
        # Long enough for the disconnect watch to listen.
        (playing(OK, seconds=0.06), 200),
        (playing(EVENTS, b"1\r\na\r\n"), 200),
        (playing(), 502),
        (playing(b"SSH-2.0-OpenSSH_9.6\r\n"), 502),
    ],
    ids=["answered", "answered late", "broken off", "unanswered", "no HTTP"],
)
async def test_request_leaves_no_cycle(
    client: RawClient, backend: RawBackend, script: Play, status: int, size: int
) -> None:
    async def ask() -> None:
        client.post(ANY + b"/x", b"x" * size)
        assert (await client.answer()).status == status

    backend.script = script
    assert await garbage_of(ask) < TIMES


async def test_request_that_is_sent_again_leaves_no_cycle(
    client: RawClient, backend: RawBackend
) -> None:
    async def ask() -> None:
        client.post(CHAT, MODEL)
        assert (await client.answer()).status == 200

    backend.script = dies_every_other_time
    assert await garbage_of(ask) < TIMES


async def test_backend_that_stalls_leaves_no_cycle(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=0.02)

    async def ask() -> None:
        client.post(CHAT, MODEL)
        assert (await client.answer()).status == 504

    backend.script = playing(seconds=1)
    assert await garbage_of(ask) < TIMES


async def test_refused_connection_leaves_no_cycle(client: RawClient, gateway: TableGateway) -> None:
    gateway.lay(make_target("http://127.0.0.1:1"))

    async def ask() -> None:
        client.post(ANY + b"/x", b"x")
        assert (await client.answer()).status == 502

    async def replaced(target: object, **_: object) -> object:
        return target

    gateway.activator.wait_for_change = replaced  # type: ignore[assignment,method-assign]
    assert await garbage_of(ask) < TIMES


async def test_disconnect_leaves_no_cycle(connect: Connect, backend: RawBackend) -> None:
    async def stay(session: Session) -> None:
        await session.request()
        await session.until_closed()

    async def ask_and_leave() -> None:
        asked, closed = len(backend.requests), backend.closed
        client = await connect()
        client.post(CHAT, MODEL)
        await until_async(lambda: len(backend.requests) > asked, "the request there")
        client.disconnect()
        await until_async(lambda: backend.closed > closed, "the connection closed")

    backend.script = stay
    assert await garbage_of(ask_and_leave) < TIMES
