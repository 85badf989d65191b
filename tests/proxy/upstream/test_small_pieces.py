"""Responses of a few bytes a piece: none stops the event loop, and the bytes stay in order."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from proxy.upstream import BackendError, BrokeOff
from proxy.upstream.connection import PART_BYTES
from tests.proxy.upstream.conftest import Asker
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_memory, measured_stall
from tests.support.wire import OK, RawBackend, Session

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(body: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


async def test_chunks_of_one_byte_are_read_in_turns(asker: Asker, backend: RawBackend) -> None:
    body = bytes(range(256)) * 2000
    backend.answers = [CHUNKED + chunks(body), OK]
    async with measured_stall() as stall:
        assert await asker.body() == body
    assert stall.seconds < MAX_STALL_SECONDS
    assert await asker.body() == b"{}"
    assert backend.connections == 1


async def test_a_reader_that_is_slow_gets_all_bytes(asker: Asker, backend: RawBackend) -> None:
    body = bytes(range(256)) * 2000
    backend.answers = [CHUNKED + chunks(body)]
    pieces = []
    with await asker.ask() as answer:
        while not answer.is_at_end:
            await asyncio.sleep(0.001)
            pieces.append(await answer.read())
    assert b"".join(pieces) == body


async def test_a_large_body_behind_its_head_is_read_whole(
    asker: Asker, backend: RawBackend
) -> None:
    body = bytes(range(256)) * 8000
    backend.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)] * 3
    for _ in range(3):
        assert await asker.body() == body
    assert backend.connections == 1


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES - 60, 100_000])
async def test_bytes_behind_a_response_are_no_other_response(
    asker: Asker, backend: RawBackend, size: int
) -> None:
    """They may be held when the connection is given back."""
    body = b"x" * size
    answer = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled" * 2000

    async def play(session: Session) -> None:
        await session.request()
        await session.send(answer + (b"" if backend.connections > 1 else smuggled))
        await session.until_closed()

    backend.script = play
    with contextlib.suppress(BackendError):  # closed before the body was read
        assert await asker.body() == body
    assert await asker.body() == body
    assert backend.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 200_000, id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 2**20, id="a long header"),
        pytest.param(CHUNKED + b"0\r\n" + b"a:\r\n" * 200_000, id="trailers"),
        pytest.param(CHUNKED + b"1" + b";a" * 400_000, id="chunk extensions"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000, id="interim responses"),
        pytest.param(b"\r\n" * 400_000, id="line ends"),
    ],
)
async def test_lines_without_an_end_break_off(
    asker: Asker, backend: RawBackend, answer: bytes
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(answer)
        await session.until_closed()

    backend.script = play
    with measured_memory() as peak:
        async with measured_stall() as stall:
            with pytest.raises(BackendError) as raised:
                await asker.body()
    assert not isinstance(raised.value, BrokeOff) or "without a body" in str(raised.value)
    assert stall.seconds < MAX_STALL_SECONDS
    assert peak.grown_bytes < 3 * len(answer) + 2**20
