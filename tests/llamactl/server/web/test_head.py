"""Limits on the head of a request, on real sockets: what must not reach any parser."""

from __future__ import annotations

import time

import pytest
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, parse_cookie
from django.utils.http import parse_header_parameters

from llamactl.server.web.head import MAX_HEADERS, MAX_LINE_BYTES
from tests.llamactl.server.web.test_http import Connect, answer, connect, is_closed

__all__ = ["connect"]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def status(connect: Connect, request: bytes) -> int:
    """The status of the answer to ``request``; a refusal ends the connection."""
    reader, writer = await connect()
    writer.write(request)
    line, body = await answer(reader)
    code = int(line.split()[1])
    if code != 200:
        assert b'"error"' in body
        assert await is_closed(reader)
    return code


TOO_LARGE = {
    "Content-Type": b'Content-Type: x; a="' + b";" * 60_000,
    "Content-Type above 500 bytes": b"Content-Type: x; a=" + b";" * 500,
    "Cookie": b'Cookie: a="' + b"\\" * 8_000,
    "cookies in sum": b"Cookie: " + b"a" * 3000 + b"\r\nCookie: " + b"a" * 3000,
    "Accept": b"Accept: " + b"a;" * 5_000,
    "repeated Accept": b"\r\n".join([b"Accept: " + b"a/b;q=1," * 400] * 10),
    "Authorization": b"Authorization: Bearer " + b"a" * 20_000,
    "Range": b"Range: bytes=" + b"0-," * 5_000,
    "X-Forwarded-For": b"X-Forwarded-For: " + b"127.0.0.1," * 2_000,
    "Accept-Language": b"Accept-Language: " + b"a-" * 5_000,
    "a name": b"a" * 9_000 + b": x",
    "many headers": b"\r\n".join(b"x-%d: y" % number for number in range(MAX_HEADERS)),
}


@pytest.mark.parametrize("is_handshake", [False, True], ids=["HTTP", "WebSocket"])
@pytest.mark.parametrize("line", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_headers_beyond_their_limit_are_431(
    connect: Connect, line: bytes, is_handshake: bool
) -> None:
    head = GET + (HANDSHAKE if is_handshake else b"")
    assert await status(connect, head + line + b"\r\n\r\n") == 431


@pytest.mark.parametrize(
    "line",
    [
        b"X-A: " + b"a" * (MAX_LINE_BYTES - 7),
        b"Content-Type: " + b"a" * 500,
        b"Cookie: " + b"a" * 3072,
        b"Cookie: " + b"a" * 1500 + b"\r\nCookie: " + b"a" * 1500,
        b"\r\n".join(b"x-%d: y" % number for number in range(MAX_HEADERS - 1)),
    ],
)
async def test_headers_at_their_limit_are_taken(connect: Connect, line: bytes) -> None:
    assert await status(connect, GET + line + b"\r\n\r\n") == 200


async def test_a_long_target_is_414_and_has_the_shape_of_its_path(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"GET /v1/models?" + b"a&" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    line, body = await answer(reader)
    assert line.split()[1] == b"414"
    assert b'"type":"invalid_request_error"' in body


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_request_of_http_1_1_without_host_is_400(connect: Connect, version: bytes) -> None:
    code = await status(connect, b"GET / HTTP/" + version + b"\r\n\r\n")
    assert code == (400 if version == b"1.1" else 200)


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a/b", b"http://a", b"a@b", b"a,b", b"a:", b"a:b", b"[::1", b"\xe4"]
)
async def test_a_host_that_is_none_is_400(connect: Connect, host: bytes) -> None:
    assert await status(connect, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == 400


@pytest.mark.parametrize("host", [b"a", b"A_b.c-d:80", b"127.0.0.1:1", b"[fe80::1]:8080"])
async def test_a_host_that_is_a_name_or_an_address_is_taken(connect: Connect, host: bytes) -> None:
    assert await status(connect, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == 200


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"X-API-Key", b"Content-Type"])
async def test_a_header_that_doors_read_differently_may_come_once(
    connect: Connect, name: bytes
) -> None:
    twice = name + b": a\r\n" + name.lower() + b": b\r\n\r\n"
    assert await status(connect, GET + twice) == 400


@pytest.mark.parametrize(
    "head",
    [
        GET + HANDSHAKE + b"Content-Length: 5\r\n\r\nhello",
        GET + HANDSHAKE + b"Content-Length: 00\r\n\r\n",
        GET + HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET.replace(b"GET", b"POST") + HANDSHAKE + b"\r\n",
        GET.replace(b"1.1", b"1.0") + HANDSHAKE + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HANDSHAKE + b"\r\n",
    ],
    ids=["a body", "length 00", "chunks", "POST", "HTTP/1.0", "no Host"],
)
async def test_a_handshake_that_the_websocket_parser_refuses_is_400(
    connect: Connect, head: bytes
) -> None:
    assert await status(connect, head) == 400


async def test_a_handshake_behind_a_request_in_progress_is_400(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + GET + HANDSHAKE + b"\r\n")
    assert (await answer(reader))[0] == b"HTTP/1.1 400 Bad Request"
    assert await is_closed(reader)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTENT_TYPE", 'x; a="' + ";" * 494),
        ("CONTENT_TYPE", "x;" + "a*0='';" * 70),
        ("HTTP_COOKIE", 'a="' + "\\" * 3068 + '"'),
        ("HTTP_COOKIE", 'a="' + "\\0" * 1534 + '"'),
        ("HTTP_HOST", "[" + ":" * 8000),
        ("HTTP_HOST", "x:" + "1" * 8000 + "y"),
    ],
)
def test_the_slowest_value_within_its_limit_costs_less_than_50_ms(name: str, value: str) -> None:
    request = HttpRequest()
    request.META = {name: value}
    began_at = time.thread_time()
    if name == "HTTP_HOST":
        with pytest.raises(DisallowedHost):
            request.get_host()
    elif name == "HTTP_COOKIE":
        parse_cookie(value)
    else:
        parse_header_parameters(value)
    assert time.thread_time() - began_at < 0.05
