"""WebSockets through uvicorn as it really serves: its settings, its loop, a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import psutil
import pytest
import uvicorn
from aiohttp import web

from llamactl.config import AppConfig
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from llamactl.middleware.cors import CrossOrigin
from llamactl.middleware.origin_guard import OriginGuard
from llamactl.server.web.server import uvicorn_config
from proxy.asgi import ProxyApplication
from tests.proxy.conftest import MANAGER, Backend, TableGateway, make_target
from tests.support.socket_backend import SocketBackend, until_it_stalls

PATH = "/api/v1/instances/demo/proxy/ws"
KEY = {"Authorization": f"Bearer {MANAGER}"}


class Served:
    """llamactl's layers on a port; the gateway belongs to the server's loop."""

    def __init__(self, config: AppConfig, origin: str) -> None:
        self.gateway: TableGateway
        self._config, self._origin = config, origin
        self._application: Any = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.server = uvicorn.Server(uvicorn_config(self))
        # Signals are the main thread's.
        self._thread = threading.Thread(target=self.server.run, args=([self._listener],))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._application(scope, receive, send)
            return
        self.gateway = TableGateway(self._config)
        self.gateway.lay(make_target(self._origin))

        async def rest(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        application: Any = ProxyApplication(rest, self.gateway)
        if not self._config.auth.require_management_auth:
            application = OriginGuard(
                application, host="127.0.0.1", allowed_origins=["https://page.example"]
            )
        self._application = CrossOrigin(application, allowed_origins=["*"], allowed_headers=["*"])
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.gateway.upstream.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        self._thread.start()
        async with asyncio.timeout(20):
            while not self.server.started:
                await asyncio.sleep(0.01)

    def ask_to_stop(self) -> None:
        self.server.should_exit = True

    async def stop(self) -> None:
        self.ask_to_stop()
        await asyncio.to_thread(self._thread.join, 30)
        assert not self._thread.is_alive()
        self._listener.close()

    async def until_idle(self) -> None:
        async with asyncio.timeout(10):
            while self.gateway.in_flight.count("demo"):
                await asyncio.sleep(0.01)


@pytest.fixture
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a peer does is no error of ours."""
    yield
    assert not [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING
    ]


@pytest.fixture
async def served(
    backend: Backend, config: AppConfig, nothing_logged: None
) -> AsyncIterator[Served]:
    served = Served(config, backend.origin)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_messages_go_both_ways(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    sockets.subprotocols = ("v1",)
    async with client.ws_connect(
        served.url + PATH, headers=KEY, protocols=("v2", "v1"), compress=15, max_msg_size=0
    ) as connection:
        assert connection.protocol == "v1"
        # Compression is offered by this client, and declined.
        assert not connection.compress
        for text in ("hello", "", "é" * 200_000):
            await connection.send_str(text)
            assert await connection.receive_str(timeout=10) == text
        await connection.send_bytes(bytes(5 * 2**20))
        assert len(await connection.receive_bytes(timeout=10)) == 5 * 2**20
        await connection.ping()
        await connection.close(code=4000, message=b"done")
    await sockets.end()
    assert sockets.last is not None
    assert (sockets.close_code, sockets.last.extra) == (4000, "done")
    await served.until_idle()


async def test_close_code_and_reason_of_the_backend_arrive(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    async def close(socket: web.WebSocketResponse) -> None:
        await socket.close(code=3456, message=b"no more")

    sockets.script = close
    async with client.ws_connect(served.url + PATH, headers=KEY) as connection:
        message = await connection.receive(timeout=10)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 3456)
        assert message.extra == "no more"
    await sockets.end()
    await served.until_idle()


@pytest.mark.parametrize("is_reset", [False, True])
async def test_connection_that_breaks_tells_the_backend_that_the_client_went_away(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession, *, is_reset: bool
) -> None:
    connection = await client.ws_connect(served.url + PATH, headers=KEY)
    await connection.send_str("hello")
    await connection.receive_str(timeout=10)
    transport = connection._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    if is_reset:
        transport.abort()
    else:
        transport.close()
    await sockets.end()
    assert sockets.close_code == 1001
    await served.until_idle()
    await connection.close()


async def test_backend_that_dies_closes_the_client(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    async def die(socket: web.WebSocketResponse) -> None:
        transport = socket._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()

    sockets.script = die
    async with client.ws_connect(served.url + PATH, headers=KEY) as connection:
        message = await connection.receive(timeout=10)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1011)
    await served.until_idle()


async def test_message_of_a_client_that_is_too_large_is_answered_with_1009(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    """While the backend sends, too: uvicorn has closed by itself then."""

    async def tick(socket: web.WebSocketResponse) -> None:
        async def send_on() -> None:
            while True:
                await socket.send_str("tick")
                await asyncio.sleep(0)

        sending = asyncio.ensure_future(send_on())
        sockets.last = await socket.receive()
        sending.cancel()
        await socket.close()

    sockets.script = tick
    async with client.ws_connect(served.url + PATH, headers=KEY) as connection:
        sending = asyncio.ensure_future(connection.send_bytes(bytes(MAX_MESSAGE_BYTES + 1)))
        message = await connection.receive(timeout=10)
        while message.type is aiohttp.WSMsgType.TEXT:
            message = await connection.receive(timeout=10)
        await asyncio.gather(sending, return_exceptions=True)
        # The client may see the connection go before the frame that is behind what it still sends.
        if message.type is aiohttp.WSMsgType.CLOSE:
            assert message.data == 1009
    await sockets.end()
    assert sockets.last is not None
    assert sockets.last.data == 1009
    await served.until_idle()


async def test_shutdown_closes_both_sides(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    async with client.ws_connect(served.url + PATH, headers=KEY) as connection:
        await connection.send_str("hello")
        await connection.receive_str(timeout=10)
        served.ask_to_stop()
        message = await connection.receive(timeout=10)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1012)
    await sockets.end()
    assert sockets.close_code == 1012


async def raw_handshake(served: Served, path: str = PATH, *lines: str) -> socket.socket:
    """A client that reads nothing by itself, after its handshake."""
    connection = socket.create_connection(served.address)
    key = base64.b64encode(os.urandom(16)).decode()
    head = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        f"Authorization: Bearer {MANAGER}",
        *lines,
    ]
    connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
    return connection


async def test_flood_for_a_client_that_does_not_read_stays_with_the_backend(
    served: Served, sockets: SocketBackend
) -> None:
    sent, number = 0, 8000

    async def flood(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        for _ in range(number):
            await socket.send_bytes(bytes(2**16))
            sent += 1

    sockets.script = flood
    process = psutil.Process()
    before = process.memory_info().rss
    connection = await raw_handshake(served)
    # Of 500 MB: what the kernel's buffers hold, and hardly anything in this process.
    assert await until_it_stalls(lambda: sent) < number // 4
    assert process.memory_info().rss - before < 40 * 2**20
    # It should end for the backend when the client gives up.
    connection.close()
    await sockets.end()
    await served.until_idle()


async def test_flood_for_a_backend_that_does_not_read_stays_with_the_client(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    sent, number = 0, 4000
    may_read = asyncio.Event()

    async def read_late(socket: web.WebSocketResponse) -> None:
        await may_read.wait()
        for _ in range(number):
            await socket.receive()
        await socket.send_str("all of it")
        await socket.receive()

    async def flood() -> None:
        nonlocal sent
        for _ in range(number):
            await connection.send_bytes(bytes(2**16))
            sent += 1

    sockets.script = read_late
    process = psutil.Process()
    before = process.memory_info().rss
    async with client.ws_connect(served.url + PATH, headers=KEY) as connection:
        flooding = asyncio.ensure_future(flood())
        assert await until_it_stalls(lambda: sent) < number // 4
        assert process.memory_info().rss - before < 40 * 2**20
        may_read.set()
        assert await connection.receive_str(timeout=30) == "all of it"
        await flooding


async def test_shutdown_ends_a_client_whose_messages_the_backend_does_not_take(
    config: AppConfig, sockets: SocketBackend, backend: Backend, client: aiohttp.ClientSession
) -> None:
    served = Served(config, backend.origin)
    await served.start()

    sent = 0
    may_end = asyncio.Event()

    async def never_read(socket: web.WebSocketResponse) -> None:
        await may_end.wait()

    async def flood() -> None:
        nonlocal sent
        while True:
            await connection.send_bytes(bytes(2**16))
            sent += 1

    sockets.script = never_read
    served.server.config.timeout_graceful_shutdown = 1
    connection = await client.ws_connect(served.url + PATH, headers=KEY)
    flooding = asyncio.ensure_future(flood())
    await until_it_stalls(lambda: sent)
    await served.stop()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asyncio.wait_for(flooding, 10)
    may_end.set()
    await connection.close()


async def flooded(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession, may_read: asyncio.Event
) -> tuple[aiohttp.ClientWebSocketResponse, asyncio.Transport, asyncio.Task[None]]:
    """A client that has sent as much as it can to a backend that reads only once it may."""
    sent = 0

    async def read_late(socket: web.WebSocketResponse) -> None:
        await may_read.wait()
        while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            pass

    async def flood() -> None:
        nonlocal sent
        while True:
            await connection.send_bytes(bytes(2**16))
            sent += 1

    sockets.script = read_late
    connection = await client.ws_connect(served.url + PATH, headers=KEY)
    transport = connection._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    flooding = asyncio.create_task(flood())
    await until_it_stalls(lambda: sent)
    return connection, transport, flooding


@pytest.mark.parametrize("is_shutdown", [False, True])
async def test_end_that_comes_while_a_backend_does_not_read_is_met_once_it_does(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession, *, is_shutdown: bool
) -> None:
    may_read = asyncio.Event()
    connection, transport, flooding = await flooded(served, sockets, client, may_read)
    if is_shutdown:
        served.ask_to_stop()
    else:
        transport.abort()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asyncio.wait_for(flooding, 10)
    may_read.set()
    await sockets.end()
    await served.until_idle()
    await connection.close()


async def test_who_leaves_while_a_backend_does_not_read_is_missed_before_it_does(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    may_read = asyncio.Event()
    connection, transport, flooding = await flooded(served, sockets, client, may_read)
    transport.abort()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asyncio.wait_for(flooding, 10)
    await served.until_idle()
    # It should leave the backend time to read what was sent before, and why nothing follows.
    may_read.set()
    await sockets.end()
    assert sockets.close_code == 1001
    await connection.close()


@pytest.mark.parametrize("path", ["/%ff", "//", "/api/v1/instances/%ff/proxy/ws", "*"])
async def test_odd_path_is_refused_quietly(served: Served, path: str) -> None:
    connection = await raw_handshake(served, path)
    answer = await asyncio.to_thread(connection.recv, 2**16)
    connection.close()
    assert answer.startswith(b"HTTP/1.1 4")


# Refusals


async def status_of(client: aiohttp.ClientSession, url: str, **headers: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await client.ws_connect(url, headers=headers)
    return refusal.value.status


async def test_refusals_have_the_status_of_a_requests(
    served: Served, sockets: SocketBackend, backend: Backend, client: aiohttp.ClientSession
) -> None:
    assert await status_of(client, served.url + PATH) == 401
    assert await status_of(client, served.url + PATH, Authorization="Bearer nonsense") == 401
    assert await status_of(client, served.url + PATH.replace("demo", "other"), **KEY) == 404
    assert await status_of(client, served.url + "/v1/realtime?model=demo", **KEY) == 404
    assert await status_of(client, served.url + "/", **KEY) == 404

    async def upgrade_required(request: web.Request) -> web.StreamResponse:
        return web.Response(status=426)

    backend.handler = upgrade_required
    assert await status_of(client, served.url + PATH, **KEY) == 426


async def test_refusal_is_the_document_that_a_request_gets(
    served: Served, sockets: SocketBackend
) -> None:
    connection = await raw_handshake(served, PATH.replace("demo", "other"))
    answer = b""
    while chunk := await asyncio.to_thread(connection.recv, 2**16):
        answer += chunk
    connection.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"content-type: application/json" in head.lower()
    assert set(json.loads(body)) == {"error", "details"}


async def test_browser_gives_its_key_in_the_query(
    served: Served, sockets: SocketBackend, backend: Backend, client: aiohttp.ClientSession
) -> None:
    async with client.ws_connect(f"{served.url}{PATH}?api_key={MANAGER}&x=1") as connection:
        await connection.send_str("hello")
        assert await connection.receive_str(timeout=10) == "hello"
    assert str(backend.requests[0].rel_url) == "/ws?x=1"


@pytest.mark.parametrize(
    ("origin", "gets_in"),
    [
        (None, True),
        ("https://page.example", True),
        ("https://evil.example", False),
        ("null", False),
    ],
)
async def test_without_keys_foreign_pages_can_not_open_one(
    backend: Backend,
    sockets: SocketBackend,
    config: AppConfig,
    nothing_logged: None,
    client: aiohttp.ClientSession,
    *,
    origin: str | None,
    gets_in: bool,
) -> None:
    auth = config.auth.model_copy(update={"require_management_auth": False})
    served = Served(config.model_copy(update={"auth": auth}), backend.origin)
    await served.start()
    headers = {} if origin is None else {"Origin": origin}
    if gets_in:
        async with client.ws_connect(served.url + PATH, headers=headers) as connection:
            await connection.send_str("hello")
            assert await connection.receive_str(timeout=10) == "hello"
    else:
        assert await status_of(client, served.url + PATH, **headers) == 403
        assert not backend.requests
    await served.stop()
