"""Frames of a few bytes: no number of them stops the event loop or gathers in memory."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llamactl.core.websocket_limits import UTF8_EXTENSION
from llamactl.server.web.http import HttpProtocol
from llamactl.server.web.websocket import WebSocketProtocol
from tests.llamactl.server.web.test_http import Connect, Connection, serving
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_memory, measured_stall
from tests.support.until import until_async

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = b"\0\0\0\0"
CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9


def frame(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    first = opcode | (0x80 if is_final else 0)
    if len(payload) < 126:
        return bytes((first, 0x80 | len(payload))) + MASK + payload
    return struct.pack("!BBQ", first, 0x80 | 127, len(payload)) + MASK + payload


async def total(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and answer the message ``end`` with the number of messages and their size."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    count = size = 0
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "end":
            await send({"type": "websocket.send", "text": f"{count} {size}"})
        else:
            count += 1
            size += len(message.get("text") or message["bytes"])


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async for each in serving(HttpProtocol, total):
        yield each


async def opened(connect: Connect) -> Connection:
    reader, writer = await connect()
    writer.write(HANDSHAKE)
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def message(reader: asyncio.StreamReader) -> bytes:
    """The payload of the next message; pongs are skipped."""
    async with asyncio.timeout(60):
        while True:
            first, size = await reader.readexactly(2)
            payload = await reader.readexactly(size)
            if first & 0x0F != PING + 1:
                return payload


@pytest.mark.parametrize(
    ("flood", "counted"),
    [
        pytest.param(frame(PING) * 60_000, b"0 0", id="pings"),
        pytest.param(frame(PING, b"a" * 125) * 10_000, b"0 0", id="long pings"),
        pytest.param(frame(TEXT, b"a") * 40_000, b"40000 40000", id="messages"),
        pytest.param(
            frame(TEXT, is_final=False)
            + frame(CONTINUATION, is_final=False) * 60_000
            + frame(CONTINUATION, b"a"),
            b"1 1",
            id="fragments without a payload",
        ),
        pytest.param(
            frame(BINARY, is_final=False)
            + frame(CONTINUATION, b"a", is_final=False) * 60_000
            + frame(CONTINUATION, b"a"),
            b"1 60001",
            id="fragments of one byte",
        ),
        pytest.param(frame(BINARY, b"a" * 2**20) * 4, b"4 4194304", id="large messages"),
    ],
)
async def test_a_flood_of_frames_is_read_in_turns(
    connect: Connect, flood: bytes, counted: bytes
) -> None:
    reader, writer = await opened(connect)
    with measured_memory() as peak:
        async with measured_stall() as stall:
            writer.write(flood + frame(TEXT, b"end"))
            assert await message(reader) == counted
    assert stall.seconds < MAX_STALL_SECONDS
    assert peak.grown_bytes < 3 * len(flood) + 2**20


async def test_a_client_that_reads_no_pongs_has_to_wait(connect: Connect) -> None:
    """Pongs would gather in memory otherwise."""
    _, writer = await opened(connect)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # a transport that reads
    ping = frame(PING, b"a" * 125) * 1000
    with measured_memory() as peak:
        sent = 0
        try:
            async with asyncio.timeout(60):
                while sent < 2**26:
                    writer.write(ping)
                    async with asyncio.timeout(2):
                        await writer.drain()
                    sent += len(ping)
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()  # a close would wait for the bytes that nobody reads
    assert sent < 2**26
    # The client's own buffer is in this process too.
    assert peak.grown_bytes < 3 * 2**20


async def test_frames_before_the_answer_to_the_handshake_wait_as_bytes() -> None:
    """A client without a key has no message parsed."""
    received = asyncio.Event()
    proceed = asyncio.Event()
    parsed: list[int] = []

    class Noted(WebSocketProtocol):
        def handle_ping(self) -> None:
            parsed.append(1)
            super().handle_ping()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        received.set()
        await proceed.wait()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})

    async for connect in serving(HttpProtocol, late, ws=Noted):
        reader, writer = await connect()
        writer.write(HANDSHAKE)
        await received.wait()
        writer.write(frame(PING) * 1000 + frame(TEXT, b"hello"))
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert not parsed
        proceed.set()
        await reader.readuntil(b"\r\n\r\n")
        assert await message(reader) == b"hello"
        assert len(parsed) == 1000


async def test_a_client_that_leaves_before_the_answer_is_noticed() -> None:
    received, ended = asyncio.Event(), asyncio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        received.set()
        assert (await receive())["type"] == "websocket.disconnect"
        ended.set()

    async for connect in serving(HttpProtocol, late):
        _, writer = await connect()
        writer.write(HANDSHAKE)
        await received.wait()
        writer.write(frame(PING) * 10)
        await asyncio.sleep(0.01)
        writer.transport.abort()
        await until_async(ended.is_set, "the disconnect noticed")


async def test_a_large_text_is_not_decoded() -> None:
    """One wide character would make a ``str`` of four times the size."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        assert UTF8_EXTENSION in scope["extensions"]
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    large = b"a" * (2**20) + "😀".encode()
    async for connect in serving(HttpProtocol, echo):
        reader, writer = await opened(connect)
        for text in (large, "é".encode(), large):
            writer.write(frame(TEXT, text))
            async with asyncio.timeout(10):
                first, size = await reader.readexactly(2)
                if size == 127:
                    size = int.from_bytes(await reader.readexactly(8))
                assert first == 0x80 | TEXT
                assert await reader.readexactly(size) == text
