"""Elements of a few bytes each: pipelined requests, chunks, headers, trailers and frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bench.hostile.request import KEY, MANAGEMENT, MIB, Input, post

_HOST = b" HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = b"POST %b" + _HOST + b"Authorization: Bearer %b\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHAT = b"/v1/chat/completions"
_SOCKET = b"/api/v1/instances/hostile/proxy/socket"
_CONTINUATION, _TEXT, _BINARY, _PING = 0, 1, 2, 9


def found_floods() -> Iterator[Input]:
    """Floods of HTTP."""
    yield Input("pipelined requests", (b"GET /healthz" + _HOST + b"\r\n") * 30_000)
    yield Input("pipelined requests of Django", (b"GET /x" + _HOST + b"\r\n") * 300)
    yield Input("short headers", b"GET /healthz" + _HOST + b"a:\r\n" * 15_000 + b"\r\n")
    for path in (_CHAT, b"/admin/login/", b"/api/v1/instances/hostile/proxy/whole"):
        head = _CHUNKED % (path, MANAGEMENT if b"proxy" in path else KEY)
        name = path.decode()
        body = b"1\r\na\r\n" * MIB
        yield Input(f"chunks of one byte to {name}", head + body + b"0\r\n\r\n")
        yield Input(f"trailers to {name}", head + b"0\r\n" + b"a:\r\n" * 200_000)
        yield Input(f"chunk extensions to {name}", head + b"1" + b";a" * 200_000)
    json = b"application/json"
    yield post(_CHAT, json, b"1\r\na\r\n" * MIB, name="no JSON")


def found_sockets() -> Iterator[Input]:
    """Floods of WebSocket frames, with a key and without."""
    floods = {
        "pings": _frame(_PING) * 100_000,
        "long pings": _frame(_PING, b"a" * 125) * 20_000,
        "messages of one byte": _frame(_BINARY, b"a") * 50_000,
        "fragments": _frame(_TEXT, is_final=False) + _frame(_CONTINUATION, b"a", False) * 100_000,
        "a large text": _frame(_TEXT, b"a" * (16 * MIB)),
        "a large text of wide characters": _frame(_TEXT, b"a" * (16 * MIB - 4) + "😀".encode()),
        "a large text of Chinese": _frame(_TEXT, "中".encode() * (5 * MIB)),
        "a large binary message": _frame(_BINARY, b"a" * (16 * MIB)),
    }
    handshake = (
        b"GET %b" + _HOST + b"Authorization: Bearer %b\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for name, flood in floods.items():
        yield Input(f"WebSocket: {name}", handshake % (_SOCKET, MANAGEMENT), flood)
        yield Input(f"WebSocket without a key: {name}", handshake % (_SOCKET, b"x") + flood)


def _frame(opcode: int, payload: bytes = b"", is_final: bool = True) -> bytes:
    first = opcode | (0x80 if is_final else 0)
    if len(payload) < 126:
        return bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload
    return struct.pack("!BBQ", first, 0x80 | 127, len(payload)) + b"\0\0\0\0" + payload
