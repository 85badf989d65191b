"""Requests: the backend gets exactly what the client sends."""

from __future__ import annotations

import asyncio

import pytest

from tests.proxy.conftest import ALICE, TableGateway
from tests.proxy.sockets.conftest import Connect
from tests.support.wire import OK, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"


async def test_body_in_chunks_arrives_whole(client: RawClient, backend: RawBackend) -> None:
    chunks = b'8;x=y\r\n{"model"\r\n8\r\n:"demo"}\r\n0\r\n\r\n'
    client.ask(b"POST " + CHAT, b"Transfer-Encoding: chunked", body=chunks)
    assert (await client.answer()).status == 200
    assert backend.requests[0].body == MODEL
    assert backend.requests[0].values(b"content-length") == [b"16"]
    assert not backend.requests[0].values(b"transfer-encoding")


async def test_body_that_trickles_arrives_whole(client: RawClient, backend: RawBackend) -> None:
    client.ask(b"POST " + CHAT, b"Content-Length: 16")
    for byte in MODEL:
        client.send(bytes([byte]))
        await asyncio.sleep(0.001)
    assert (await client.answer()).status == 200
    assert backend.requests[0].body == MODEL


async def test_client_that_expects_100_continue_gets_it_before_the_body(
    client: RawClient, backend: RawBackend
) -> None:
    client.ask(b"POST " + CHAT, b"Content-Length: 16", b"Expect: 100-continue")
    assert (await client.answer()).status == 100
    client.send(MODEL)
    assert (await client.answer()).status == 200
    assert not backend.requests[0].values(b"expect")


async def test_client_without_a_valid_key_gets_its_401_instead_of_100(client: RawClient) -> None:
    client.key = b"llamactl-wrong"
    client.ask(b"POST " + CHAT, b"Content-Length: 16", b"Expect: 100-continue")
    assert (await client.answer()).status == 401


async def test_trailers_become_no_headers(client: RawClient, backend: RawBackend) -> None:
    trailers = b"X-Forwarded-User: admin\r\nX-B: 2\r\nContent-Type: text/evil\r\n"
    client.ask(
        b"POST " + CHAT,
        b"Transfer-Encoding: chunked",
        b"Trailer: X-B",
        body=b"10\r\n" + MODEL + b"\r\n0\r\n" + trailers + b"\r\n",
    )
    assert (await client.answer()).status == 200
    for name in (b"x-forwarded-user", b"x-b", b"content-type", b"trailer"):
        assert not backend.requests[0].values(name)


async def test_trailers_without_end_are_refused(client: RawClient) -> None:
    client.ask(b"POST " + CHAT, b"Transfer-Encoding: chunked", body=b"10\r\n" + MODEL + b"\r\n")
    client.send(b"0\r\nX-A: ")
    for _ in range(9):
        client.send(b"x" * 10_000)
        await asyncio.sleep(0.01)
    assert (await client.answer()).status == 431


async def test_repeated_and_odd_headers_arrive_as_they_are(
    client: RawClient, backend: RawBackend
) -> None:
    client.post(
        CHAT,
        MODEL,
        b"X-A: 1",
        b"x-a: 2, 3",
        b"X-Empty:",
        b"X-Utf: caf\xc3\xa9",
        b"X-Latin: caf\xe9",
        b"X-Tab: a\tb",
        b"!#$%&'*+-.^_`|~: odd",
    )
    assert (await client.answer()).status == 200
    request = backend.requests[0]
    assert request.values(b"x-a") == [b"1", b"2, 3"]
    assert request.values(b"x-empty") == [b""]
    assert request.values(b"x-utf") == [b"caf\xc3\xa9"]
    assert request.values(b"x-latin") == [b"caf\xe9"]
    assert request.values(b"x-tab") == [b"a\tb"]
    assert request.values(b"!#$%&'*+-.^_`|~") == [b"odd"]


async def test_headers_between_us_and_the_client_go_no_further(
    client: RawClient, backend: RawBackend
) -> None:
    client.post(
        CHAT,
        MODEL,
        b"X-Hop: 1",
        b"Connection: keep-alive, X-Hop, authorization",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Proxy-Authorization: Basic x",
        b"Cookie: session=1",
        b"X-End: 1",
    )
    assert (await client.answer()).status == 200
    request = backend.requests[0]
    assert request.values(b"x-end") == [b"1"]
    for name in (b"x-hop", b"connection", b"keep-alive", b"te", b"proxy-authorization", b"cookie"):
        assert not request.values(name)
    # It should not let a client take away the backend's key.
    assert request.values(b"authorization") == [b"Bearer of-the-backend"]


async def test_pipelined_requests_are_answered_in_turn(
    client: RawClient, backend: RawBackend
) -> None:
    for number in range(5):
        client.post(CHAT, b'{"model":"demo","n":%d}' % number)
    backend.answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(5)
    ]
    assert [(await client.answer()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    assert [request.body[-2:-1] for request in backend.requests] == [b"0", b"1", b"2", b"3", b"4"]


async def test_last_request_of_a_connection_says_so(client: RawClient) -> None:
    client.post(CHAT, MODEL, b"Connection: close")
    answer = await client.answer()
    assert (answer.body, answer.values(b"connection")) == (b"{}", [b"close"])
    assert await client.is_closed()


SMUGGLED = b"POST /v1/x HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4\r\nContent-Length: 4\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: 0x4\r\n",
        b"Content-Length: 4 4\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length : 4\r\n",
        b"Content-Length\r\n: 4\r\n",
        b" Content-Length: 4\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"X-A: a\r\n Transfer-Encoding: chunked\r\n",
        b"X-A: a\rTransfer-Encoding: chunked\r\n",
        b"X-A: a\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"X-A: a\x00b\r\n",
        b"X-A\x00: b\r\n",
        b": b\r\n",
    ],
)
async def test_head_that_two_readers_could_understand_differently_is_refused(
    client: RawClient, backend: RawBackend, lines: bytes
) -> None:
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + ALICE.encode()
        + b"\r\n"
        + lines
        + b"\r\n"
        + SMUGGLED
    )
    assert (await client.answer()).status == 400
    assert await client.is_closed()
    assert not backend.requests


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"ffffffffffffffffff\r\na",
        b"\r\n",
    ],
)
async def test_bad_chunk_ends_the_connection_and_reaches_no_backend(
    client: RawClient, backend: RawBackend, body: bytes
) -> None:
    client.ask(b"POST " + CHAT, b"Transfer-Encoding: chunked", body=body + SMUGGLED)
    assert (await client.answer()).status == 400
    assert await client.is_closed()
    assert not backend.requests


@pytest.mark.parametrize(
    ("target", "status", "reached"),
    [
        (b"http://anything.example/api/v1/instances/demo/proxy/a?b=1", 200, b"GET /a?b=1"),
        (ANY + b"/a#b", 200, b"GET /a"),
        (ANY + b"//a//b", 200, b"GET //a//b"),
        (ANY + b"/a%00b%0d%0aX:y", 200, b"GET /a%00b%0d%0aX:y"),
        # Behind the management proxy a path is the backend's, however it is spelt.
        (ANY + b"/../../../keys", 200, b"GET /../../../keys"),
        (ANY + b"/%2e%2e/%2e%2e/x", 200, b"GET /%2e%2e/%2e%2e/x"),
        (b"/api/v1/instances/demo%2F..%2Fother/proxy/", 400, None),
        (b"/api/v1/instances/demo/../demo/proxy/", 404, None),
        (b"/api/v1/instances/demo/pr%6fxy/", 404, None),
        (b"/v1/../api/v1/instances", 404, None),
        (b"//v1/models", 404, None),
        (b"*", 404, None),
        (b"anything.example:443", 400, None),
        (b"http://anything.example", 400, None),
        (b"/a\x00b", 400, None),
        (b"/a\x7fb", 400, None),
        (b"/a\x1fb", 400, None),
        (b"/caf\xc3\xa9", 400, None),
        (b"relative", 400, None),
        (b"", 400, None),
    ],
)
async def test_target_reaches_what_it_names_and_nothing_else(
    client: RawClient, backend: RawBackend, target: bytes, status: int, reached: bytes | None
) -> None:
    client.ask(b"GET " + target)
    assert (await client.answer()).status == status
    lines = [request.first_line.removesuffix(b" HTTP/1.1") for request in backend.requests]
    assert lines == ([] if reached is None else [reached])


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../slots",
        b"/v1/%2e%2e/slots",
        b"/v1/..%2fslots",
        b"/v1/./x",
        b"/v1/x/%2E%2E",
        b"/v1/..",
    ],
)
async def test_inference_key_climbs_out_of_v1_by_no_spelling(
    client: RawClient, backend: RawBackend, path: bytes
) -> None:
    client.key = ALICE.encode()
    client.post(path, MODEL)
    assert (await client.answer()).status == 404
    assert not backend.requests


async def test_connect_is_no_way_through(client: RawClient, backend: RawBackend) -> None:
    client.ask(b"CONNECT 127.0.0.1:%d" % backend.port)
    assert (await client.answer()).status == 400
    assert await client.is_closed()
    assert not backend.connections


async def test_url_that_no_backend_takes_is_refused(
    client: RawClient, connect: Connect, backend: RawBackend
) -> None:
    client.ask(b"GET " + ANY + b"/" + b"a" * 8050)
    assert (await client.answer()).status == 414
    client.ask(b"GET " + ANY + b"/" + b"a" * 9000)
    assert (await client.answer()).status == 414
    assert await client.is_closed()
    client = await connect()
    client.ask(b"GET " + ANY + b"/" + b"a" * 70_000)
    assert (await client.answer()).status == 431
    assert not backend.requests


async def test_idempotent_method_is_sent_again_and_a_post_to_the_proxy_is_not(
    connect: Connect, backend: RawBackend
) -> None:
    async def die_once(session: Session) -> None:
        await session.request()
        if len(backend.requests) > 1:
            await session.send(OK)

    backend.script = die_once
    for start, times in ((b"PUT ", 2), (b"GET ", 2), (b"POST ", 1), (b"PATCH ", 1)):
        backend.requests.clear()
        client = await connect()
        client.ask(start + ANY + b"/x", b"Content-Length: 1", body=b"x")
        # The effect of a POST there is unknown: it should not be sent twice.
        assert (await client.answer()).status == (200 if times == 2 else 502), start
        assert [request.body for request in backend.requests] == [b"x"] * times


async def test_post_to_the_proxy_has_a_connection_of_its_own(
    client: RawClient, backend: RawBackend
) -> None:
    for _ in range(2):
        client.post(ANY + b"/x", b"x")
        assert (await client.answer()).status == 200
    # None that was kept, which the backend may be closing just now.
    assert backend.connections == 2


async def test_body_of_an_inference_key_is_bounded_however_it_comes(
    connect: Connect, backend: RawBackend, gateway: TableGateway
) -> None:
    size = 4 * 2**20
    gateway.max_body_bytes = size
    for path in (b"/llama-cpp/demo/tokenize", CHAT):
        client = await connect()
        client.ask(b"POST " + path, b"Content-Length: %d" % (size + 1))
        assert (await client.answer()).status == 413
        client = await connect()
        client.ask(b"POST " + path, b"Transfer-Encoding: chunked")
        for _ in range(5):
            client.send(b"100000\r\n", b"x" * 2**20, b"\r\n")
        assert (await client.answer()).status == 413
    assert not any(request.is_whole for request in backend.requests)
