"""The HTTP/1.1 protocol: upgrades, time and size bounds, keep-alive, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from llamactl.server.web.head import MAX_HEAD_BYTES
from llamactl.server.web.http import HttpProtocol
from llamactl.server.web.websocket import WebSocketProtocol
from tests.support.until import until_async

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


class ShortTimeouts(HttpProtocol):
    head_seconds = 0.2
    body_seconds = 0.2


class LongTimeouts(HttpProtocol):
    """Timeouts shorter than the whole upload, and far longer than one piece of it."""

    body_seconds = 3.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.timeout_keep_alive = 3


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the method and the body; at ``/slow`` after 0.6 s."""
    body = b""
    if scope["path"] == "/slow":
        await asyncio.sleep(0.6)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    answer = scope["method"].encode() + b" " + body
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def serving(
    protocol: type[HttpProtocol], application: Any = echo, ws: Any = WebSocketProtocol
) -> AsyncIterator[Connect]:
    config = uvicorn.Config(application, log_config=None, lifespan="off", access_log=False, ws=ws)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    writers = []

    async def connect() -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
    server.close()
    for task in list(state.tasks):
        task.cancel()
    await server.wait_closed()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async for each in serving(HttpProtocol):
        yield each


@pytest.fixture
async def connect_long_timeouts() -> AsyncIterator[Connect]:
    async for each in serving(LongTimeouts):
        yield each


@pytest.fixture
async def connect_short_timeouts() -> AsyncIterator[Connect]:
    async for each in serving(ShortTimeouts):
        yield each


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The status line and the body of the next answer."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        return head.partition(b"\r\n")[0], await reader.readexactly(length)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether nothing more comes but the end; a reset where our last bytes crossed the close."""
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"


async def test_requests_follow_each_other_on_a_connection(connect: Connect) -> None:
    reader, writer = await connect()
    for _ in range(3):
        writer.write(POST + b"\r\nbody")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST body")


async def test_pipelined_requests_are_answered_in_turn(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(POST + b"\r\none " + POST + b"\r\ntwo ")
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST one ")
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST two ")


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        b"connection: upgrade\r\nupgrade: TLS/1.0, HTTP/2.0\r\n",
        b"UPGRADE:h2c\r\nConnection: keep-alive, Upgrade\r\n",
    ],
)
async def test_a_request_that_offers_another_protocol_keeps_its_body(
    connect: Connect, offer: bytes
) -> None:
    reader, writer = await connect()
    writer.write(POST + offer + b"\r\nbody")
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST body")


@pytest.mark.parametrize("length", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("is_behind", [False, True], ids=["in parts", "behind another request"])
async def test_a_body_behind_an_offer_that_stays_unseen_is_no_request_of_its_own(
    connect: Connect, length: bytes, is_behind: bool
) -> None:
    reader, writer = await connect()
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    head = b"POST / HTTP/1.1\r\nHost: x\r\n" + offer + length + b"\r\n"
    if is_behind:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + head)
    else:
        writer.write(head[:-3])
        await asyncio.sleep(0.05)
        writer.write(head[-3:])
    await asyncio.sleep(0.05)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answers = await asyncio.wait_for(reader.read(), 10)
    assert b"HTTP/1.1 400" in answers
    # At most that to the request in front.
    assert answers.count(b"HTTP/1.1 200") <= is_behind


async def test_an_offer_without_a_body_is_ignored(connect: Connect) -> None:
    reader, writer = await connect()
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpg")
        await asyncio.sleep(0.05)
        writer.write(b"rade: h2c\r\nContent-Length: 0\r\n\r\n")
        assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"


async def test_a_body_that_contains_an_upgrade_header_is_not_changed(connect: Connect) -> None:
    body = b"\r\nUpgrade: h2c\r\n"
    reader, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + body)


async def test_a_head_that_trickles_is_rejected_with_408(connect_short_timeouts: Connect) -> None:
    reader, writer = await connect_short_timeouts()
    status = None
    async with asyncio.timeout(10):
        for byte in POST * 1000:
            if reader._buffer or writer.is_closing():  # type: ignore[attr-defined]
                status, _ = await answer(reader)
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert await is_closed(reader)


async def test_a_connection_without_a_request_is_closed(connect_short_timeouts: Connect) -> None:
    reader, _ = await connect_short_timeouts()
    assert await is_closed(reader)


async def test_a_body_that_stops_halfway_is_rejected_with_408(
    connect_short_timeouts: Connect,
) -> None:
    reader, writer = await connect_short_timeouts()
    writer.write(POST + b"\r\nbo")
    assert (await answer(reader))[0] == b"HTTP/1.1 408 Request Timeout"
    assert await is_closed(reader)


async def test_a_slow_body_may_take_longer_than_the_timeout_in_all(
    connect_long_timeouts: Connect,
) -> None:
    reader, writer = await connect_long_timeouts()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n")
    for _ in range(12):
        writer.write(b"x")
        await asyncio.sleep(0.3)
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + b"x" * 12)


class ShortWholeTimeout(HttpProtocol):
    body_seconds = 5.0
    whole_body_seconds = 0.5


@pytest.fixture
async def connect_short_whole_timeout() -> AsyncIterator[Connect]:
    async for each in serving(ShortWholeTimeout):
        yield each


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["with a length", "in chunks"],
)
async def test_a_body_that_drips_is_rejected_with_408(
    connect_short_whole_timeout: Connect, head: bytes
) -> None:
    reader, writer = await connect_short_whole_timeout()
    writer.write(head)
    piece = b"1\r\nx\r\n" if b"chunked" in head else b"x"
    async with asyncio.timeout(20):
        while not reader._buffer:  # type: ignore[attr-defined]
            writer.write(piece)
            await asyncio.sleep(0.05)
    assert (await answer(reader))[0] == b"HTTP/1.1 408 Request Timeout"
    assert await is_closed(reader)


async def test_a_large_body_on_a_slow_line_has_time_for_its_bytes(
    connect_short_whole_timeout: Connect,
) -> None:
    reader, writer = await connect_short_whole_timeout()
    pieces = [b"x" * 8192] * 10
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 81920\r\n\r\n")
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.1)
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + b"".join(pieces))


class ShortHandshake(WebSocketProtocol):
    handshake_seconds = 0.2


async def test_a_handshake_that_the_application_does_not_answer_is_504() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        disconnects.append((await receive())["type"])

    disconnects: list[str] = []
    async for connect in serving(HttpProtocol, silent, ShortHandshake):
        reader, writer = await connect()
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await answer(reader))[0] == b"HTTP/1.1 504 Gateway Timeout"
        assert await is_closed(reader)
        await until_async(lambda: disconnects == ["websocket.disconnect"], "the disconnect")


async def test_an_idle_connection_is_kept_between_requests(connect_short_timeouts: Connect) -> None:
    reader, writer = await connect_short_timeouts()
    for _ in range(2):
        writer.write(POST + b"\r\nbody")
        assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
        await asyncio.sleep(0.4)


async def test_the_head_of_a_pipelined_request_may_take_as_long_as_the_response_before_it(
    connect_short_timeouts: Connect,
) -> None:
    reader, writer = await connect_short_timeouts()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"GET ")


@pytest.mark.parametrize("piece", [1000, 2 * MAX_HEAD_BYTES])
async def test_a_head_above_the_limit_is_rejected_with_431(connect: Connect, piece: int) -> None:
    reader, writer = await connect()
    writer.write(b"GET / HTTP/1.1\r\n")
    line = b"X-Filler: " + b"x" * (piece - 12) + b"\r\n"
    for _ in range(2 * MAX_HEAD_BYTES // piece):
        writer.write(line)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n")
    assert head == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    ],
    ids=["garbage", "two lengths", "length and chunks", "bad chunk", "obs-fold", "blank in name"],
)
async def test_a_request_that_could_smuggle_another_is_rejected(
    connect: Connect, request_: bytes
) -> None:
    reader, writer = await connect()
    writer.write(request_)
    assert (await answer(reader))[0] == b"HTTP/1.1 400 Bad Request"
    assert await is_closed(reader)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class ShortKeepAlive(HttpProtocol):
    """An idle timeout of 0.4 s."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.timeout_keep_alive = 0.4  # type: ignore[assignment] # uvicorn's has whole seconds


@pytest.fixture
async def connect_short_keep_alive() -> AsyncIterator[Connect]:
    async for each in serving(ShortKeepAlive):
        yield each


async def test_an_idle_connection_is_closed_after_the_idle_timeout(
    connect_short_keep_alive: Connect,
) -> None:
    reader, writer = await connect_short_keep_alive()
    writer.write(GET)
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"GET ")
    assert await is_closed(reader)


async def test_a_connection_in_use_is_kept_open(connect_long_timeouts: Connect) -> None:
    reader, writer = await connect_long_timeouts()
    for _ in range(8):
        writer.write(GET)
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"GET ")
        await asyncio.sleep(0.45)


async def test_a_request_may_take_longer_than_the_idle_timeout(
    connect_short_keep_alive: Connect,
) -> None:
    reader, writer = await connect_short_keep_alive()
    writer.write(GET)
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"GET ")
    writer.write(GET.replace(b"/", b"/slow", 1))
    assert await answer(reader) == (b"HTTP/1.1 200 OK", b"GET ")
    assert await is_closed(reader)
