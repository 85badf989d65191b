"""WebSockets through uvicorn as it really serves: its settings, its loop, a thread of its own."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import psutil
import pytest
from aiohttp import web

from llamactl.config import AppConfig
from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from tests.proxy.conftest import MANAGER, Backend
from tests.proxy.websocket.served import KEY, PATH, Served, raw_handshake
from tests.support.socket_backend import SocketBackend, until_it_stalls


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
        # The client may lose the connection before it reads the close frame.
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
    # Of 500 MB, the kernel's buffers hold some, and this process hardly any.
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
