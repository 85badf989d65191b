"""HTTP/1.0 has no chunks: a response without a length ends with the connection."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.until import until_async
from tests.support.wire import OK, SECONDS, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = CHUNKS.replace(b"\r\n", b"\r\nContent-Type: text/event-stream\r\n", 1)


def ask(client: RawClient, start: bytes, *lines: bytes, body: bytes = b"") -> None:
    lines = (b"Authorization: Bearer " + client.key, b"Content-Length: %d" % len(body), *lines)
    client.send(b"\r\n".join((start + b" HTTP/1.0", *lines)) + b"\r\n\r\n" + body)


def post(client: RawClient, *lines: bytes) -> None:
    ask(client, b"POST " + CHAT, *lines, body=MODEL)


async def head_of_unframed(client: RawClient) -> None:
    answer = await client.answer(has_body=False)
    assert answer.status == 200
    assert not answer.values(b"transfer-encoding")
    assert not answer.values(b"content-length")
    assert answer.values(b"connection") == [b"close"]


async def rest(client: RawClient) -> bytes:
    """The bytes until the connection ends in order. Raises ConnectionResetError if it doesn't."""
    async with asyncio.timeout(SECONDS):
        return await client.reader.read()


@pytest.mark.parametrize("lines", [(), (b"Connection: keep-alive",)], ids=["plain", "keep-alive"])
async def test_answer_in_chunks_comes_unframed_and_ends_with_the_connection(
    client: RawClient, backend: RawBackend, lines: tuple[bytes, ...]
) -> None:
    backend.answers = [CHUNKS + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"]
    post(client, *lines)
    await head_of_unframed(client)
    assert await rest(client) == b"hello world"


async def test_large_answer_arrives_whole_however_slowly_it_is_read(
    client: RawClient, backend: RawBackend
) -> None:
    piece = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
    backend.answers = [CHUNKS + piece * 128 + b"0\r\n\r\n"]
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    post(client)
    await until_async(lambda: len(backend.requests) == 1, "the request there")
    await asyncio.sleep(0.3)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await head_of_unframed(client)
    assert len(await rest(client)) == 128 * 2**16


async def test_events_arrive_as_they_come(client: RawClient, backend: RawBackend) -> None:
    go_on = asyncio.Event()

    async def play(session: Session) -> None:
        await session.request()
        await session.send(EVENTS + b"9\r\ndata: 1\n\n\r\n")
        await go_on.wait()
        await session.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    backend.script = play
    post(client)
    await head_of_unframed(client)
    async with asyncio.timeout(SECONDS):
        assert await client.reader.readexactly(9) == b"data: 1\n\n"
    go_on.set()
    assert await rest(client) == b"data: 2\n\n"


async def test_answer_that_breaks_off_is_cut_with_a_reset(
    client: RawClient, backend: RawBackend
) -> None:
    die = asyncio.Event()

    async def play(session: Session) -> None:
        await session.request()
        await session.send(CHUNKS + b"4\r\nhalf\r\n")
        await die.wait()

    backend.script = play
    post(client)
    await head_of_unframed(client)
    async with asyncio.timeout(SECONDS):
        assert await client.reader.readexactly(4) == b"half"
    die.set()
    with pytest.raises(ConnectionResetError):
        await rest(client)


async def test_events_that_break_off_end_in_order_with_an_error(
    client: RawClient, backend: RawBackend
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(EVENTS + b"9\r\ndata: 1\n\n\r\n")

    backend.script = play
    post(client)
    await head_of_unframed(client)
    body = await rest(client)
    assert body.startswith(b"data: 1\n\n")
    assert b"backend_broke_off" in body


async def test_answer_of_a_fixed_length_stays_one(client: RawClient, backend: RawBackend) -> None:
    backend.answers = [OK]
    post(client)
    answer = await client.answer()
    assert (answer.body, answer.values(b"content-length")) == (b"{}", [b"2"])
    assert answer.values(b"connection") == [b"close"]
    assert await rest(client) == b""


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n"),
        (b"HEAD", b"200 OK\r\nContent-Length: 100\r\n"),
        (b"GET", b"204 No Content\r\n"),
        (b"GET", b"304 Not Modified\r\nETag: x\r\n"),
    ],
)
async def test_answer_without_a_body_ends_with_its_head(
    client: RawClient, backend: RawBackend, method: bytes, head: bytes
) -> None:
    backend.answers = [b"HTTP/1.1 " + head + b"\r\n"]
    ask(client, method + b" " + ANY + b"/x")
    answer = await client.answer(has_body=False)
    assert answer.status == int(head[:3])
    assert not answer.values(b"transfer-encoding")
    assert await rest(client) == b""


async def test_request_of_1_0_behind_one_of_1_1_has_its_own_way(
    client: RawClient, backend: RawBackend
) -> None:
    backend.answers = [CHUNKS + b"%d\r\n" % n + b"x" * n + b"\r\n0\r\n\r\n" for n in (1, 2)]
    client.post(CHAT, MODEL)
    post(client)
    first = await client.answer()
    assert (first.body, first.values(b"transfer-encoding")) == (b"x", [b"chunked"])
    await head_of_unframed(client)
    assert await rest(client) == b"xx"


async def test_expectation_of_100_is_ignored(client: RawClient, backend: RawBackend) -> None:
    post(client, b"Expect: 100-continue")
    assert (await client.answer()).status == 200
