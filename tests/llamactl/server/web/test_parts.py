"""Input of a few bytes an element: no piece of it stops the event loop, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llamactl.server.web.http import HttpProtocol
from llamactl.server.web.parts import PART_BYTES
from tests.llamactl.server.web.test_http import Connect, answer, echo, serving
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_memory, measured_stall

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SMALL = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async for each in serving(HttpProtocol):
        yield each


async def test_chunks_of_one_byte_are_read_in_turns(connect: Connect) -> None:
    reader, writer = await connect()
    body = bytes(range(256)) * 1000
    # Before the measurement: to make the chunks takes 50 ms too.
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    async with measured_stall() as stall:
        writer.write(CHUNKED + chunks + b"0\r\n\r\n")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + body)
    assert stall.seconds < MAX_STALL_SECONDS


async def test_pipelined_requests_wait_as_bytes() -> None:
    most, started = 0, asyncio.Event()
    protocols: list[Noted] = []

    class Noted(HttpProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            protocols.append(self)

    async def note(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        most = max(most, len(protocols[0].pipeline))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
        started.set()

    count = 5_000
    async for connect in serving(Noted, note):
        reader, writer = await connect()
        async with measured_stall() as stall:
            writer.write(b"".join(SMALL % number for number in range(count)))
            async with asyncio.timeout(60):
                for number in range(count):
                    assert (await reader.readuntil(b"0\r\n\r\n")).endswith(
                        b"/%d\r\n0\r\n\r\n" % number
                    )
        assert stall.seconds < MAX_STALL_SECONDS
        # No more than one part of the input has become requests.
        assert 0 < most <= PART_BYTES // len(SMALL)


async def test_a_body_goes_to_the_request_before_the_next_is_parsed(connect: Connect) -> None:
    """The rest of a body must not wait for the end of its own request."""
    reader, writer = await connect()
    bodies = [b"a" * 300_000, b"b", b"c" * 100_000]
    for _ in range(2):
        writer.write(
            b"".join(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(each), each)
                for each in bodies
            )
        )
    for each in bodies * 2:
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + each)


async def test_a_chunked_body_that_is_not_read_waits_as_bytes() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        await echo(scope, receive, send)

    proceed = asyncio.Event()
    body = b"12345678" * 100_000
    async for connect in serving(HttpProtocol, slow):
        reader, writer = await connect()
        writer.write(CHUNKED)
        for at in range(0, len(body), 8):
            writer.write(b"8\r\n%b\r\n" % body[at : at + 8])
        writer.write(b"0\r\n\r\n")
        await asyncio.sleep(0)
        proceed.set()
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + body)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 15_000, id="headers"),
        pytest.param(CHUNKED + b"0\r\n" + b"a:\r\n" * 60_000, id="trailers"),
        pytest.param(CHUNKED + b"1" + b";a" * 100_000, id="chunk extensions"),
    ],
)
async def test_lines_without_an_end_are_431(connect: Connect, data: bytes) -> None:
    reader, writer = await connect()
    with measured_memory() as peak:
        async with measured_stall() as stall:
            writer.write(data)
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 431 ")
    assert stall.seconds < MAX_STALL_SECONDS
    assert peak.grown_bytes < 3 * len(data) + 2**20


async def test_many_connections_share_the_turns(connect: Connect) -> None:
    body = b"x" * 20_000
    data = CHUNKED + b"1\r\nx\r\n" * len(body) + b"0\r\n\r\n"
    connections = [await connect() for _ in range(30)]
    async with measured_stall() as stall:
        for _, writer in connections:
            writer.write(data)
        for reader, _ in connections:
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"POST " + body)
    assert stall.seconds < MAX_STALL_SECONDS


async def test_a_connection_closed_while_input_is_held_leaves_nothing(connect: Connect) -> None:
    _, writer = await connect()
    writer.write(CHUNKED + b"1\r\nx\r\n" * 40_000)
    await asyncio.sleep(0)
    writer.transport.abort()
    reader, writer = await connect()
    writer.write(SMALL % 1)
    assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
