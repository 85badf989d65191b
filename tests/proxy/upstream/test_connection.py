"""Parsing of responses, and reuse of connections; see also tests/proxy/sockets."""

from __future__ import annotations

import asyncio

import pytest

from proxy.upstream import BackendError, BrokeOff, Refused, Stalled, Unanswered, connection
from proxy.upstream.connection import MAX_HEAD_BYTES, MAX_HEADERS, MAX_INTERIM_RESPONSES
from tests.proxy.upstream.conftest import Asker
from tests.support.until import until_async
from tests.support.wire import OK, RawBackend, Session

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_connection_is_used_again_after_a_whole_answer(
    asker: Asker, backend: RawBackend
) -> None:
    for _ in range(3):
        assert await asker.body() == b"{}"
    assert backend.connections == 1


async def test_connection_is_closed_where_the_answer_was_not_read_to_its_end(
    asker: Asker, backend: RawBackend
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(CHUNKED + b"1\r\na\r\n")
        await session.until_closed()

    backend.script = play
    with await asker.ask() as answer:
        assert await answer.read() == b"a"
    await until_async(lambda: backend.closed == 1, "the connection closed")
    with pytest.raises(AssertionError):
        await answer.read()


async def test_connection_is_used_again_where_much_of_a_whole_answer_was_not_read(
    asker: Asker, backend: RawBackend
) -> None:
    # More than waits to be read, and little enough to come in one piece with its end.
    backend.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, OK]
    with await asker.ask() as answer:
        await until_async(lambda: answer.is_whole, "the whole answer there")
    async with asyncio.timeout(5):
        assert await asker.body() == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_connection_that_the_backend_means_to_close_is_not_used_again(
    asker: Asker, backend: RawBackend, answer: bytes
) -> None:
    backend.answers = [answer]
    for _ in range(2):
        assert await asker.body() == b"{}"
    assert backend.connections == 2


async def test_connection_whose_backend_answered_before_it_had_read_all_is_not_used_again(
    asker: Asker, backend: RawBackend
) -> None:
    async def play(session: Session) -> None:
        await session.reader.readuntil(b"\r\n\r\n")
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await session.send(OK)
        await asyncio.sleep(0.3)

    backend.script = play
    assert await asker.body(b"x" * 2**24) == b"{}"
    backend.script = backend._answer
    assert await asker.body() == b"{}"
    assert backend.connections == 2


async def test_bytes_before_the_break_are_read_before_the_error(
    asker: Asker, backend: RawBackend
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(CHUNKED + b"1\r\na\r\n")

    backend.script = play
    answer = await asker.ask()
    await until_async(lambda: backend.closed == 1, "the backend gone")
    await asyncio.sleep(0.05)
    assert await answer.read() == b"a"
    for _ in range(2):
        with pytest.raises(BrokeOff):
            await answer.read()
    answer.release()


async def test_last_piece_is_known_to_be_the_last(asker: Asker, backend: RawBackend) -> None:
    backend.answers = [CHUNKED + b"1\r\na\r\n0\r\n\r\n"]
    with await asker.ask() as answer:
        assert await answer.read() == b"a"
        assert answer.is_at_end
        assert await answer.read() == b""


async def test_interim_answers_have_an_end(asker: Asker, backend: RawBackend) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nX-A: a\r\n\r\n"
    backend.answers = [interim * (2 * MAX_HEAD_BYTES // len(interim)) + OK]
    with pytest.raises(BackendError):
        await asker.body()


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


async def test_some_interim_answers_are_skipped(asker: Asker, backend: RawBackend) -> None:
    backend.answers = [INTERIM * MAX_INTERIM_RESPONSES + OK]
    for _ in range(2):
        assert await asker.body() == b"{}"
    assert backend.connections == 1


async def test_interim_answers_are_counted(asker: Asker, backend: RawBackend) -> None:
    async def play(session: Session) -> None:
        await session.request()
        for _ in range(MAX_INTERIM_RESPONSES + 1):
            await session.send(INTERIM)
        await session.until_closed()

    backend.script = play
    with pytest.raises(BackendError, match="interim"):
        await asker.body()


@pytest.mark.parametrize(
    "beginning",
    [b"H", b"\r\n", b"HTTP/1.1 200 OK\r\nX-A: a", INTERIM + b"HTTP/1.1 ", INTERIM[:-2]],
)
async def test_head_that_has_begun_has_to_end(
    asker: Asker, backend: RawBackend, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)

    async def play(session: Session) -> None:
        await session.request()
        await session.send(beginning)
        await session.until_closed()

    backend.script = play
    with pytest.raises(Stalled, match="head"):
        await asker.body()
    await until_async(lambda: backend.closed == 1, "the connection closed")


@pytest.mark.parametrize("beginning", [b"", INTERIM])
async def test_backend_may_think_for_longer_before_its_head(
    asker: Asker, backend: RawBackend, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)

    async def play(session: Session) -> None:
        await session.request()
        await session.send(beginning)
        await asyncio.sleep(0.3)
        await session.send(OK)
        await session.until_closed()

    backend.script = play
    assert await asker.body() == b"{}"


async def test_trailers_have_an_end(asker: Asker, backend: RawBackend) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(CHUNKED + b"1\r\na\r\n0\r\n")
        while True:
            await session.send(b"X-A: " + b"a" * 1000 + b"\r\n")

    backend.script = play
    with pytest.raises(BrokeOff):
        await asker.body()


async def test_body_of_many_small_pieces_is_not_taken_for_a_head(
    asker: Asker, backend: RawBackend
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(CHUNKED)
        for _ in range(2000):
            await session.send(b"1;" + b"x" * 100 + b"\r\na\r\n")
        await session.send(b"0\r\n\r\n")

    backend.script = play
    assert await asker.body() == b"a" * 2000


@pytest.mark.parametrize(("number", "is_taken"), [(MAX_HEADERS, True), (MAX_HEADERS + 1, False)])
async def test_headers_are_counted(
    asker: Asker, backend: RawBackend, number: int, is_taken: bool
) -> None:
    lines = b"".join(b"X-A: %d\r\n" % each for each in range(number - 1))
    backend.answers = [b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\n{}"]
    if is_taken:
        with await asker.ask() as answer:
            assert len(answer.headers) == number
    else:
        with pytest.raises(BackendError, match="too many"):
            await asker.ask()


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"identity"])
async def test_transfer_coding_that_was_not_requested_is_no_response(
    asker: Asker, backend: RawBackend, coding: bytes
) -> None:
    backend.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"]
    with pytest.raises(BackendError):
        await asker.ask()


async def test_nothing_that_listens_is_refused(asker: Asker, backend: RawBackend) -> None:
    await backend.stop()
    with pytest.raises(Refused):
        await asker.ask()


async def test_end_instead_of_an_answer_is_unanswered(asker: Asker, backend: RawBackend) -> None:
    async def play(session: Session) -> None:
        await session.request()

    backend.script = play
    with pytest.raises(Unanswered):
        await asker.ask()


async def test_cancelled_request_closes_its_connection(asker: Asker, backend: RawBackend) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.until_closed()

    backend.script = play
    task = asyncio.create_task(asker.ask())
    await until_async(lambda: len(backend.requests) == 1, "the request there")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_async(lambda: backend.closed == 1, "the connection closed")


async def test_more_than_is_wanted_whole_breaks_off(asker: Asker, backend: RawBackend) -> None:
    backend.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"]
    with await asker.ask() as answer, pytest.raises(BrokeOff, match="more than 9"):
        await answer.read_whole(9)
