"""What a request leaves behind is freed at once: the garbage collector comes seldom in production.

A cycle for each request would hold its body until fifty thousand other objects are left; see
``proxy.asgi``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from instances.states import DesiredState, Status
from proxy.body.body import WHOLE_BYTES
from proxy.routes import backend_json
from tests.proxy.conftest import TableGateway, make_target
from tests.proxy.sockets.conftest import Connect
from tests.support.until import until_async
from tests.support.wire import OK, Play, RawBackend, RawClient, Session, switching_protocols

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
    """How many objects the collector finds when it was done so many times.

    The objects of before are kept out of the collector: to look at all of them takes 0.4 s.
    """
    await what()
    await asyncio.sleep(0.05)
    gc.disable()
    gc.freeze()
    try:
        for _ in range(TIMES):
            await what()
        await asyncio.sleep(0.05)
        return gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()


async def test_a_cycle_is_found() -> None:
    async def leave_a_cycle() -> None:
        cycle: list[object] = []
        cycle.append(cycle)

    assert await garbage_of(leave_a_cycle) == TIMES


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


HANDSHAKE = (
    *(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xe8"


@pytest.mark.parametrize("end", [b"", CLOSE_FRAME], ids=["disconnect", "close"])
@pytest.mark.parametrize(
    ("path", "status"), [(ANY + b"/ws", 101), (b"/v1/ws", 404)], ids=["opened", "refused"]
)
async def test_websocket_leaves_no_cycle(
    connect: Connect, backend: RawBackend, path: bytes, status: int, end: bytes
) -> None:
    async def play(session: Session) -> None:
        await session.send(switching_protocols(await session.request()))
        await session.until_closed()

    async def open_and_leave() -> None:
        closed = backend.closed
        client = await connect()
        client.ask(b"GET " + path, *HANDSHAKE)
        assert (await client.answer()).status == status
        client.send(end)
        if end:
            await client.is_closed()
        client.disconnect()
        if status == 101:
            await until_async(lambda: backend.closed > closed, "the connection closed")

    backend.script = play
    assert await garbage_of(open_and_leave) < TIMES


REFUSED = [
    ("wrong key", b"POST", CHAT, MODEL, 401),
    ("no such model", b"POST", CHAT, b'{"model":"other"}', 404),
    ("no JSON", b"POST", CHAT, b'{"model"', 400),
    ("too large", b"POST", CHAT, b'{"model":"demo","x":"' + b"x" * 2**20 + b'"}', 413),
    ("wrong method", b"DELETE", CHAT, MODEL, 405),
    ("no such instance", b"POST", b"/api/v1/instances/other/proxy/x", b"x", 404),
    ("stopped", b"POST", CHAT, b'{"model":"stopped"}', 503),
    ("waits in vain", b"POST", CHAT, b'{"model":"slow"}', 503),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [each[1:] for each in REFUSED],
    ids=[each[0] for each in REFUSED],
)
async def test_refused_request_leaves_no_cycle(
    connect: Connect,
    backend: RawBackend,
    gateway: TableGateway,
    request: pytest.FixtureRequest,
    method: bytes,
    path: bytes,
    body: bytes,
    status: int,
) -> None:
    demo = make_target(backend.origin, is_llama_server=True)
    stopped = replace(
        demo, name="stopped", status=Status.STOPPED, desired_state=DesiredState.STOPPED
    )
    gateway.lay(
        demo,
        replace(stopped, on_demand_start=False),
        replace(stopped, name="slow", status=Status.STARTING, desired_state=DesiredState.RUNNING),
    )
    gateway.activator._timeout_seconds = 0.02

    async def ask() -> None:
        client = await connect()
        if "wrong key" in request.node.name:
            client.key = b"llamactl-charlie"
        client.ask(method + b" " + path, b"Content-Length: %d" % len(body), body=body)
        assert (await client.answer()).status == status
        client.disconnect()

    assert await garbage_of(ask) < TIMES


async def stays_silent(session: Session) -> None:
    await session.request()
    await session.until_closed()


async def falls_silent_in_the_head(session: Session) -> None:
    await session.request()
    await session.send(b"HTTP/1.1 200 OK\r\nContent-Type: te")
    await session.until_closed()


async def falls_silent_after_the_head(session: Session) -> None:
    await session.request()
    await session.send(EVENTS)
    await session.until_closed()


async def falls_silent_amid_the_body(session: Session) -> None:
    await session.request()
    await session.send(EVENTS, b"1\r\na\r\n")
    await session.until_closed()


@pytest.mark.parametrize("path", [CHAT, ANY + b"/x"], ids=["by model", "by name"])
@pytest.mark.parametrize("size", [0, 2 * WHOLE_BYTES], ids=["small", "upload"])
@pytest.mark.parametrize(
    "script",
    [
        stays_silent,
        falls_silent_in_the_head,
        falls_silent_after_the_head,
        falls_silent_amid_the_body,
    ],
)
async def test_silence_leaves_no_cycle(
    connect: Connect,
    backend: RawBackend,
    gateway: TableGateway,
    script: Play,
    size: int,
    path: bytes,
) -> None:
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=0.02, idle=0.02)
    body = b'{"model":"demo","x":"' + b"x" * size + b'"}'

    async def ask() -> None:
        client = await connect()
        client.post(path, body)
        await client.answer()
        client.disconnect()

    backend.script = script
    assert await garbage_of(ask) < TIMES


UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize("origin", ["answers", "closes", "refuses"])
async def test_handshake_without_a_websocket_leaves_no_cycle(
    connect: Connect, backend: RawBackend, gateway: TableGateway, origin: str
) -> None:
    backend.script = playing(OK) if origin == "answers" else playing()
    if origin == "refuses":
        gateway.lay(make_target("http://127.0.0.1:1"))

    async def ask() -> None:
        client = await connect()
        client.ask(b"GET " + ANY + b"/x", *UPGRADE)
        assert (await client.answer()).status == 502
        client.disconnect()

    # uvicorn's two protocols of an upgraded connection are 32 objects; an error chain is 160.
    assert await garbage_of(ask) < 40 * TIMES


async def test_disconnect_during_a_start_leaves_no_cycle(
    connect: Connect, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.STARTING))

    async def ask_and_leave() -> None:
        client = await connect()
        client.post(CHAT, MODEL)
        await until_async(gateway.activator.waiters.names, "a waiting request")
        client.disconnect()
        await until_async(lambda: not gateway.activator.waiters.names(), "no waiting request")

    assert await garbage_of(ask_and_leave) < TIMES


async def test_list_of_a_router_that_is_silent_leaves_no_cycle(
    client: RawClient, backend: RawBackend, gateway: TableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_json, "TIMEOUT_SECONDS", 0.02)
    gateway.lay(make_target(backend.origin, is_llama_server=True, served_model=None))

    async def ask() -> None:
        client.ask(b"GET /v1/models")
        assert (await client.answer()).status == 200

    backend.script = stays_silent
    assert await garbage_of(ask) < TIMES
