"""Responses: the client gets exactly what the backend sends, one response at a time."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.support.until import until_async
from tests.support.wire import OK, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"


async def test_body_of_a_fixed_length(client: RawClient, backend: RawBackend) -> None:
    backend.answers = [b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\n\r\nhello"]
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert (answer.status, answer.body) == (201, b"hello")
    assert answer.values(b"content-length") == [b"5"]
    assert not answer.values(b"transfer-encoding")


async def test_body_in_chunks_with_extensions_and_trailers(
    client: RawClient, backend: RawBackend
) -> None:
    backend.answers = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
    ]
    for _ in range(2):
        client.post(CHAT, MODEL)
        answer = await client.answer()
        assert (answer.body, answer.is_whole) == (b"hello!", True)
        assert not answer.values(b"trailer")
    # It should have kept the connection.
    assert backend.connections == 1


async def test_body_that_ends_with_the_connection(client: RawClient, backend: RawBackend) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")

    backend.script = play
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert (answer.body, answer.is_whole) == (b"all of it", True)


@pytest.mark.parametrize("length", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_head_has_the_headers_of_the_answer_and_no_body(
    client: RawClient, backend: RawBackend, length: bytes
) -> None:
    backend.answers = [b"HTTP/1.1 200 OK\r\n" + length + b"X-A: 1\r\n\r\n", OK]
    client.ask(b"HEAD " + ANY + b"/file")
    answer = await client.answer(has_body=False)
    assert answer.values(b"x-a") == [b"1"]
    if length.startswith(b"C"):
        assert answer.values(b"content-length") == [b"100"]
    client.ask(b"GET " + ANY + b"/")
    assert (await client.answer()).body == b"{}"


@pytest.mark.parametrize(
    "head",
    [
        b"204 No Content\r\n",
        b"304 Not Modified\r\nETag: x\r\n",
        b"304 Not Modified\r\nContent-Length: 100\r\n",
        b"304 Not Modified\r\nTransfer-Encoding: chunked\r\n",
        b"204 No Content\r\nContent-Length: 0\r\n",
    ],
)
async def test_answer_without_a_body_is_followed_by_the_next(
    client: RawClient, backend: RawBackend, head: bytes
) -> None:
    backend.answers = [b"HTTP/1.1 " + head + b"\r\n", OK]
    client.ask(b"GET " + ANY + b"/")
    answer = await client.answer()
    assert answer.status == int(head[:3])
    assert not answer.values(b"transfer-encoding")
    client.ask(b"GET " + ANY + b"/")
    assert (await client.answer()).body == b"{}"


async def test_interim_answers_are_not_taken_for_the_answer(
    client: RawClient, backend: RawBackend
) -> None:
    backend.answers = [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK
    ]
    client.post(CHAT, MODEL)
    assert (await client.answer()).status == 200


async def test_repeated_and_odd_headers_arrive_as_they_are(
    client: RawClient, backend: RawBackend
) -> None:
    backend.answers = [
        b"HTTP/1.1 200 OK\r\nLink: a=1\r\nLINK: b=2, c\r\nX-Empty:\r\nx-oDD: 1 \t\r\n"
        b"X-Latin: caf\xe9\r\nX-UTF: caf\xc3\xa9\r\nX-Tab: a\tb\r\nContent-Length: 0\r\n\r\n"
    ]
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert answer.values(b"link") == [b"a=1", b"b=2, c"]
    assert answer.values(b"x-empty") == [b""]
    assert answer.values(b"x-odd") == [b"1"]
    assert answer.values(b"x-latin") == [b"caf\xe9"]
    assert answer.values(b"x-utf") == [b"caf\xc3\xa9"]
    assert answer.values(b"x-tab") == [b"a\tb"]


async def test_headers_named_by_connection_go_no_further(
    client: RawClient, backend: RawBackend
) -> None:
    backend.answers = [
        b"HTTP/1.1 200 OK\r\nX-Hop: 1\r\nConnection: X-Hop, close\r\nKeep-Alive: timeout=5\r\n"
        b"Upgrade: h2c\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n"
    ]
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert answer.values(b"x-end") == [b"1"]
    for name in (b"x-hop", b"connection", b"keep-alive", b"upgrade"):
        assert not answer.values(name)


async def test_packed_body_stays_packed(client: RawClient, backend: RawBackend) -> None:
    packed = gzip.compress(b"text" * 1000)
    backend.answers = [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        + packed
    ]
    client.post(CHAT, MODEL, b"Accept-Encoding: gzip")
    answer = await client.answer()
    assert answer.body == packed
    assert answer.values(b"content-encoding") == [b"gzip"]
    assert backend.requests[0].values(b"accept-encoding") == [b"gzip"]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 529])
async def test_errors_of_the_backend_pass_untouched(
    client: RawClient, backend: RawBackend, status: int
) -> None:
    body = b'{ "error" : "mine" }'
    backend.answers = [
        b"HTTP/1.1 %d Whatever\r\nRetry-After: 7\r\nX-RateLimit-Reset: 9\r\n"
        b"Content-Type: application/problem+json\r\nContent-Length: 20\r\n\r\n%b" % (status, body)
    ]
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert (answer.status, answer.body) == (status, body)
    assert answer.values(b"retry-after") == [b"7"]
    assert answer.values(b"x-ratelimit-reset") == [b"9"]
    assert answer.values(b"content-type") == [b"application/problem+json"]
    assert not answer.values(b"x-should-retry")


async def test_answer_of_ten_megabytes_in_uneven_pieces(
    client: RawClient, backend: RawBackend
) -> None:
    body = bytes(range(256)) * 40_960

    async def play(session: Session) -> None:
        await session.request()
        await session.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        at, size = 0, 1
        while at < len(body):
            piece = body[at : at + size]
            await session.send(b"%x\r\n" % len(piece), piece, b"\r\n")
            at, size = at + size, size * 3 % 99_991
        await session.send(b"0\r\n\r\n")

    backend.script = play
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == body


POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
BROKEN = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\na\r\n0\r\n\r\n"
    ),
    "no HTTP": b"\x00\x01\x02\x03 nothing of the kind\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "status 42": b"HTTP/1.1 42 Odd\r\nContent-Length: 0\r\n\r\n",
    "an upgrade nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    ),
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a bare CR in a header": b"HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 0\r\n\r\n",
    "a blank in a name": b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
    "a header of 100 KB": (
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n"
    ),
    "a thousand headers": (
        b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 1000 + b"Content-Length: 0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_malformed_response_is_502_and_ends_its_connection(
    client: RawClient, backend: RawBackend, answer: bytes
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        if len(backend.requests) > 1:
            await session.send(OK)
            await session.until_closed()
        await session.send(answer)
        await session.until_closed()

    backend.script = play
    client.post(CHAT, MODEL)
    refusal = await client.answer()
    assert refusal.status == 502
    assert b'"code":"backend_unreachable"' in refusal.body
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == b"{}"
    assert backend.connections == 2


@pytest.mark.parametrize("head", [b"999 Odd\r\n", b"200 OK\r\nX-A: a\x01b\r\n"])
async def test_response_that_can_not_be_relayed_is_502(
    client: RawClient, backend: RawBackend, head: bytes
) -> None:
    backend.answers = [b"HTTP/1.1 " + head + b"Content-Length: 0\r\n\r\n", OK]
    client.post(CHAT, MODEL)
    assert (await client.answer()).status == 502
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == b"{}"


@pytest.mark.parametrize("seconds", [0, 0.05], ids=["at once", "later"])
@pytest.mark.parametrize(
    "more",
    [b"more than it said", POISON, b"\r\n" + POISON, b"HTTP/1.1 100 Continue\r\n\r\n" + POISON],
    ids=["garbage", "an answer", "a line and an answer", "an interim one and an answer"],
)
async def test_bytes_after_a_response_never_answer_another_request(
    client: RawClient, backend: RawBackend, more: bytes, seconds: float
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        if len(backend.requests) == 1:
            if seconds:
                await session.send(OK)
                await asyncio.sleep(seconds)
                await session.send(more)
                poisoned.set()
            else:
                await session.send(OK + more)
                poisoned.set()
            await session.until_closed()
            return
        await session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")
        await session.until_closed()

    poisoned = asyncio.Event()
    backend.script = play
    client.post(CHAT, MODEL)
    # With garbage in the same packet, the response can't be told from it.
    assert (await client.answer()).status in (200, 502)
    await poisoned.wait()
    await asyncio.sleep(0.05)
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == b"right"
    await until_async(lambda: backend.closed >= 1, "the poisoned connection closed")


async def test_folded_header_arrives_as_one_line(client: RawClient, backend: RawBackend) -> None:
    backend.answers = [b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n"]
    client.post(CHAT, MODEL)
    answer = await client.answer()
    # It should be a line, or refused; never the beginning of a header of its own.
    assert answer.status == 502 or b"\r\n b" not in answer.head


@pytest.mark.parametrize(
    "path", [CHAT, b"/llama-cpp/demo/completion", b"/api/v1/instances/demo/proxy/x"]
)
@pytest.mark.parametrize("said", [b"", b"X-Accel-Buffering: yes\r\n"])
async def test_reverse_proxy_is_told_not_to_gather_events(
    client: RawClient, backend: RawBackend, path: bytes, said: bytes
) -> None:
    kind = b"Content-Type: Text/Event-Stream; charset=utf-8\r\n"
    backend.answers = [b"HTTP/1.1 200 OK\r\n" + kind + said + b"Content-Length: 2\r\n\r\n\n\n"]
    client.post(path, MODEL)
    assert (await client.answer()).values(b"x-accel-buffering") == [b"no"]
