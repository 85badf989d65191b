"""Write timeout: a client that takes nothing of its response, and one that takes it slowly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llamactl.server.web.http import HttpProtocol
from llamactl.server.web.write_timeout import CHECKS, WriteTimeoutTransport
from tests.llamactl.server.web.test_http import Connect, serving
from tests.support.until import until_async

MIB = 2**20


class Line:
    """A transport with bytes that wait, on a real connection; also a loop with its own clock."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(listener.getsockname())
        self.server, _ = listener.accept()
        listener.close()
        self.now, self.waiting_bytes, self.timers = 0.0, 0, list[Any]()
        self.is_aborted = False

    def get_extra_info(self, _: str) -> socket.socket:
        return self.server

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None:
        self.is_aborted, self.waiting_bytes = True, 0
        self.server.close()

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Any) -> None:
        self.timers.append((self.now + seconds, call))

    def fire(self) -> None:
        """Go on to the next timer."""
        ((self.now, call),) = self.timers
        self.timers.clear()
        call()


@pytest.fixture
def line() -> Any:
    line = Line()
    yield line
    line.client.close()
    line.server.close()


def transport_on(line: Line) -> WriteTimeoutTransport:
    return WriteTimeoutTransport(line, line)  # type: ignore[arg-type] # a loop for this purpose


def test_a_client_that_takes_nothing_is_reset_after_the_timeout(line: Line) -> None:
    line.waiting_bytes = 100_000
    transport_on(line).watch_writes()
    while not line.is_aborted:
        line.fire()
    assert line.now == pytest.approx(WriteTimeoutTransport.write_seconds)
    assert not line.timers
    with pytest.raises(ConnectionResetError):
        line.client.recv(1)


def test_each_byte_that_is_taken_starts_the_timeout_anew(line: Line) -> None:
    line.waiting_bytes = 100_000
    transport_on(line).watch_writes()
    for _ in range(10):
        for _ in range(CHECKS - 1):
            line.fire()
        line.waiting_bytes -= 1
    assert line.now > 5 * WriteTimeoutTransport.write_seconds
    assert not line.is_aborted


def test_bytes_that_the_kernel_has_sent_count_as_taken(line: Line) -> None:
    line.server.setblocking(False)
    try:
        while True:
            line.server.send(bytes(MIB))
    except BlockingIOError:
        line.waiting_bytes = 100_000
    transport_on(line).watch_writes()
    for _ in range(CHECKS - 1):
        line.fire()
    # It should see a client that reads, before the kernel has room for the bytes that wait here.
    taken = 0
    while taken < MIB:
        taken += len(line.client.recv(MIB))
    for _ in range(CHECKS - 1):
        line.fire()
    assert not line.is_aborted


def test_no_timer_is_left_once_all_bytes_are_taken(line: Line) -> None:
    transport = transport_on(line)
    line.waiting_bytes = 100_000
    transport.watch_writes()
    transport.watch_writes()
    assert len(line.timers) == 1
    line.waiting_bytes = 0
    line.fire()
    assert not line.timers


def test_a_closed_connection_is_watched_only_with_unsent_bytes(line: Line) -> None:
    transport = transport_on(line)
    transport.close()
    assert not line.timers
    line.waiting_bytes = 1
    transport.close()
    while not line.is_aborted:
        line.fire()


class ShortTimeout(HttpProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._watched.write_seconds = 0.3


ended: list[str] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Send without end, or a whole large response; note how it ended."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(MIB)})
        finally:
            ended.append("websocket")
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/whole":
        await send({"type": "http.response.body", "body": bytes(64 * MIB)})
        ended.append("whole")
        return
    disconnect = asyncio.ensure_future(receive())
    while not disconnect.done():
        await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
        await asyncio.sleep(0)
    ended.append("endless")


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    ended.clear()
    async for each in serving(ShortTimeout, application):
        yield each


@pytest.mark.parametrize(
    "head",
    [
        b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /whole HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /whole HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /whole HTTP/1.0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
    ids=["endless", "closed", "kept", "HTTP/1.0", "WebSocket"],
)
async def test_a_client_that_never_reads_loses_its_connection(
    connect: Connect, head: bytes
) -> None:
    _, writer = await connect()
    client = writer.get_extra_info("socket")
    writer.transport.pause_reading()  # type: ignore[attr-defined] # a transport of both directions
    writer.write(head)
    # A reset shows in the client's socket, however much it has left unread.
    await until_async(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "no reset")
    await until_async(lambda: ended, "the application was not told")
