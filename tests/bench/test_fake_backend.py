"""The fake backend, driven as a protocol."""

from __future__ import annotations

import asyncio
import json

from bench.fake_backend import Connection


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


def connect(*, loaded_at: float = 0.0) -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    connection = Connection(alias="fake", tps=100, loaded_at=loaded_at)
    connection.connection_made(transport)
    return connection, transport


def post(body: bytes) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_large_body_in_pieces_is_one_request() -> None:
    connection, transport = connect()
    request = post(json.dumps({"messages": "x" * 1_000_000}).encode())
    for start in range(0, len(request), 65536):
        assert transport.written == b""
        connection.data_received(request[start : start + 65536])
    assert transport.written.startswith(b"HTTP/1.1 200 OK")


async def test_a_request_behind_a_large_body_is_answered_too() -> None:
    connection, transport = connect()
    request = post(b"x" * 100_000) + b"GET /health HTTP/1.1\r\n\r\n"
    connection.data_received(request[:50_000])
    connection.data_received(request[50_000:])
    assert transport.written.count(b"HTTP/1.1 200 OK") == 2


async def test_it_is_not_healthy_while_it_loads() -> None:
    connection, transport = connect(loaded_at=float("inf"))
    connection.data_received(b"GET /health HTTP/1.1\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 503 ")
