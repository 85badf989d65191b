"""Disconnects while reading is paused, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from llamactl.core.disconnect_event import disconnect_event
from llamactl.server.web import disconnect_watch
from llamactl.server.web.disconnect_watch import WatchedTransport
from llamactl.server.web.http import HttpProtocol
from llamactl.server.web.websocket import WebSocketProtocol
from tests.support.until import until_async

SECONDS = 20
"""A bound, not an expectation."""

CHECK_SECONDS = 0.05

MUCH = 50 * 2**20


class Application:
    """Receives one piece of a request, and the rest once it may; records how it ended."""

    def __init__(self) -> None:
        self.may_continue = asyncio.Event()
        self.waits_for_disconnect = False
        """Whether the application waits for the disconnect instead of responding."""
        self.has_begun = asyncio.Event()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        try:
            if scope["type"] == "websocket":
                await self._talk(scope, receive, send)
            else:
                await self._answer(receive, send)
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise

    async def _answer(self, receive: Any, send: Any) -> None:
        size, is_last, kind = 0, False, ""
        while not is_last and kind != "http.disconnect":
            message = await receive()
            kind = message["type"]
            size += len(message.get("body", b""))
            is_last = not message.get("more_body")
            self.has_begun.set()
            await self.may_continue.wait()
        if self.waits_for_disconnect:
            kind = (await receive())["type"]
        body = b"%d" % size
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.ended.put_nowait("disconnected" if kind == "http.disconnect" else "answered")

    async def _talk(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        disconnected = asyncio.ensure_future(disconnect_event(scope).wait())
        continuing = asyncio.ensure_future(self.may_continue.wait())
        self.has_begun.set()
        await asyncio.wait((disconnected, continuing), return_when=asyncio.FIRST_COMPLETED)
        continuing.cancel()
        if disconnected.done():
            self.ended.put_nowait("disconnected")
            return
        disconnected.cancel()
        size = 0
        while (message := await receive())["type"] == "websocket.receive":
            size += len(message["bytes"])
        self.ended.put_nowait(f"{size} {message['code']}")

    async def end(self) -> str:
        async with asyncio.timeout(SECONDS):
            return await self.ended.get()


class Server:
    def __init__(self, application: Any) -> None:
        self._config = uvicorn.Config(
            application, log_config=None, lifespan="off", access_log=False, ws=WebSocketProtocol
        )
        self._config.load()
        self.state = ServerState()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(self._config, self.state, {}), "127.0.0.1", 0
        )
        self.address = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        self._server.close()
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)

    def is_paused(self) -> bool:
        (protocol,) = self.state.connections
        assert isinstance(protocol.transport, WatchedTransport)
        return protocol.transport._is_paused


class Client:
    """A bare socket: sends go to the kernel at once, and so does a close."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def flood(self, piece: bytes) -> int:
        """Send until every buffer is full; returns the number of bytes sent."""
        sent = 0
        try:
            while sent < MUCH:
                async with asyncio.timeout(0.5):
                    await self.send(piece)
                sent += len(piece)
        except TimeoutError:
            pass
        assert sent < MUCH
        return sent

    async def answer(self) -> bytes:
        """The next response, with a body of at most nine bytes."""
        loop, answer = asyncio.get_running_loop(), b""
        async with asyncio.timeout(SECONDS):
            while not answer.endswith(b"\r\n\r\n"):
                answer += await loop.sock_recv(self.connection, 1)
            length = answer.lower().partition(b"content-length: ")[2]
            for _ in range(int(length[:1] or b"0")):
                answer += await loop.sock_recv(self.connection, 1)
        return answer

    def disconnect(self, way: str) -> None:
        if way == "half-close":
            self.connection.shutdown(socket.SHUT_WR)
            return
        if way == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()


@pytest.fixture(autouse=True)
def _checks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect_watch, "CHECK_SECONDS", CHECK_SECONDS)


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
async def server(application: Application) -> AsyncIterator[Server]:
    server = Server(application)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    clients = []

    async def connect() -> Client:
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, server.address)
        clients.append(Client(connection))
        return clients[-1]

    yield connect
    for client in clients:
        client.connection.close()


@pytest.fixture
async def client(connect: Callable[[], Awaitable[Client]]) -> Client:
    return await connect()


def upload(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size


SIZE = 10 * 2**20


async def begin_upload(client: Client, server: Server, application: Application) -> None:
    """Upload until reading is paused, with a part of the body in every buffer."""
    await client.send(upload(SIZE) + b"x")
    await asyncio.wait_for(application.has_begun.wait(), SECONDS)
    await client.send(b"x" * (2**16 + 1))
    await until_async(server.is_paused)
    await client.send(b"x" * 1000)


@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
async def test_a_disconnect_during_an_upload_that_is_not_received_cancels_the_application(
    client: Client, server: Server, application: Application, way: str
) -> None:
    await begin_upload(client, server, application)
    client.disconnect(way)
    assert await application.end() == "cancelled"
    assert not server.state.connections


async def test_a_reset_during_an_upload_with_full_buffers_cancels_the_application(
    client: Client, application: Application
) -> None:
    await client.send(upload(MUCH))
    await client.flood(b"x" * 2**16)
    client.disconnect("reset")
    assert await application.end() == "cancelled"


async def test_a_disconnect_behind_a_small_rest_of_an_upload_cancels_the_application(
    client: Client, server: Server, application: Application
) -> None:
    await client.send(upload(SIZE) + b"x")
    await asyncio.wait_for(application.has_begun.wait(), SECONDS)
    # Too little to pause reading, so the end is read.
    await client.send(b"x" * 1000)
    client.disconnect("close")
    assert await application.end() == "cancelled"


async def test_a_connected_client_whose_upload_is_not_received_stays_connected(
    client: Client, server: Server, application: Application
) -> None:
    await begin_upload(client, server, application)
    await asyncio.sleep(5 * CHECK_SECONDS)
    application.may_continue.set()
    await client.send(b"x" * (SIZE - 1002 - 2**16))
    assert (await client.answer()).endswith(b"%d" % SIZE)


async def test_a_connected_client_whose_upload_is_complete_stays_connected(
    client: Client, server: Server, application: Application
) -> None:
    size = 2**17
    await client.send(upload(size) + b"x")
    await asyncio.wait_for(application.has_begun.wait(), SECONDS)
    await client.send(b"x" * (size - 1))
    await until_async(server.is_paused)
    await asyncio.sleep(5 * CHECK_SECONDS)
    application.may_continue.set()
    assert (await client.answer()).endswith(b"%d" % size)


async def test_a_connected_client_with_pipelined_requests_gets_every_response(
    client: Client, server: Server, application: Application
) -> None:
    await client.send(upload(1) + b"x")
    await asyncio.wait_for(application.has_begun.wait(), SECONDS)
    await client.send(upload(2) + b"xx" + upload(3) + b"xxx")
    await until_async(server.is_paused)
    await asyncio.sleep(5 * CHECK_SECONDS)
    application.may_continue.set()
    assert [(await client.answer())[-1:] for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_disconnect_behind_pipelined_requests_is_detected(
    client: Client, server: Server, application: Application
) -> None:
    application.may_continue.set()
    application.waits_for_disconnect = True
    await client.send(upload(1) + b"x")
    await asyncio.wait_for(application.has_begun.wait(), SECONDS)
    await client.send(upload(1) + b"x")
    await until_async(server.is_paused)
    client.disconnect("close")
    assert await application.end() == "disconnected"


# -- WebSockets ------------------------------------------------------------------------------------

BINARY = bytes([0x82, 0x80 | 126]) + struct.pack("!H", 2**15) + bytes(4) + bytes(2**15)
"""A message of 32 KiB, as a client sends it: masked, here with nothing."""

CLOSE = bytes([0x88, 0x82]) + bytes(4) + struct.pack("!H", 1000)


async def open_websocket(client: Client, application: Application) -> None:
    key = base64.b64encode(os.urandom(16))
    await client.send(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    # A close with something unread would be a reset.
    assert (await client.answer()).startswith(b"HTTP/1.1 101 ")
    await asyncio.wait_for(application.has_begun.wait(), SECONDS)


@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
async def test_a_disconnect_of_a_paused_websocket_is_detected(
    client: Client, server: Server, application: Application, way: str
) -> None:
    await open_websocket(client, application)
    await client.send(BINARY * 2)
    await until_async(server.is_paused)
    client.disconnect(way)
    assert await application.end() == "disconnected"
    assert not server.state.connections


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_disconnect_of_a_websocket_with_full_buffers_is_detected(
    client: Client, application: Application, way: str
) -> None:
    await open_websocket(client, application)
    await client.flood(BINARY)
    # The FIN can't be sent through full buffers: a probe detects the disconnect.
    client.disconnect(way)
    assert await application.end() == "disconnected"


async def test_a_connected_client_of_a_paused_websocket_stays_connected(
    client: Client, server: Server, application: Application
) -> None:
    await open_websocket(client, application)
    await client.send(BINARY * 4 + CLOSE)
    await until_async(server.is_paused)
    await asyncio.sleep(5 * CHECK_SECONDS)
    application.may_continue.set()
    assert await application.end() == f"{4 * 2**15} 1000"


async def test_no_probe_is_sent_while_messages_are_read(
    client: Client, server: Server, application: Application
) -> None:
    application.may_continue.set()
    await open_websocket(client, application)
    for _ in range(5):
        await client.send(BINARY)
        await asyncio.sleep(CHECK_SECONDS)
    await client.send(CLOSE)
    assert await application.end() == f"{5 * 2**15} 1000"
    received = b""
    async with asyncio.timeout(SECONDS):
        while piece := await asyncio.get_running_loop().sock_recv(client.connection, 2**16):
            received += piece
    # Nothing but the close frame.
    assert received == bytes([0x88, 2]) + struct.pack("!H", 1000)
