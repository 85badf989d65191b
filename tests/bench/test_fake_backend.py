"""The fake backend, driven as a protocol."""

from __future__ import annotations

import asyncio
import json
import time

from bench.fake_backend import Connection, Streams


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


def connect(
    *, loaded_at: float = 0.0, streams: Streams | None = None
) -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    connection = Connection(
        alias="fake", tps=100, loaded_at=loaded_at, streams=streams or Streams()
    )
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


async def test_a_stream_is_left_when_its_connection_is_lost() -> None:
    streams = Streams()
    connection, _transport = connect(streams=streams)
    connection.data_received(post(b'{"stream": true, "max_tokens": 1000}'))
    assert (streams.open, streams.left_at) == (1, [])
    before = time.monotonic()
    connection.connection_lost(None)
    [left_at] = streams.left_at
    assert streams.open == 0
    assert before <= left_at <= time.monotonic()


async def test_a_stream_that_came_to_its_end_was_not_left() -> None:
    streams = Streams()
    connection, transport = connect(streams=streams)
    connection.data_received(post(b'{"stream": true, "max_tokens": 1, "tps": 0}'))
    await asyncio.sleep(0.01)
    assert transport.written.endswith(b"0\r\n\r\n")
    connection.connection_lost(None)
    assert (streams.open, streams.left_at) == (0, [])


async def test_it_tells_of_those_who_left_since_no_stream_was_open() -> None:
    streams = Streams()
    for _ in range(2):
        connection, _transport = connect(streams=streams)
        connection.data_received(post(b'{"stream": true}'))
        connection.connection_lost(None)
    connection, transport = connect(streams=streams)
    connection.data_received(b"GET /streams HTTP/1.1\r\n\r\n")
    body = json.loads(transport.written.partition(b"\r\n\r\n")[2])
    assert body["open"] == 0
    assert len(body["left_at"]) == 1
