"""Disconnects of a WebSocket's client: during the handshake, between messages, and in a flood."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from tests.proxy.conftest import Backend
from tests.proxy.websocket.served import KEY, PATH, Served, raw_handshake
from tests.support.socket_backend import SocketBackend, until_it_stalls


async def test_disconnect_during_the_handshake_ends_the_request(
    served: Served, backend: Backend
) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    backend.handler = hang
    connection = await raw_handshake(served)
    await asyncio.wait_for(backend.began.wait(), 10)
    assert served.gateway.in_flight.count("demo") == 1
    connection.close()
    # The backend has 10 s for its handshake: this bound is the promise.
    async with asyncio.timeout(5):
        await served.until_idle()


@pytest.mark.parametrize("is_reset", [False, True])
async def test_disconnect_between_messages_tells_the_backend_that_the_client_went_away(
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


async def test_disconnect_of_a_client_that_does_not_read_a_flood_ends_the_flood(
    served: Served, sockets: SocketBackend
) -> None:
    sent = 0

    async def flood(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        while True:
            await socket.send_bytes(bytes(2**16))
            sent += 1

    sockets.script = flood
    connection = await raw_handshake(served)
    await until_it_stalls(lambda: sent)
    connection.close()
    await served.until_idle()
    await sockets.end()


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
async def test_end_while_the_backend_does_not_read_reaches_the_backend_once_it_reads(
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


async def test_disconnect_while_the_backend_does_not_read_is_noticed_before_it_reads(
    served: Served, sockets: SocketBackend, client: aiohttp.ClientSession
) -> None:
    may_read = asyncio.Event()
    connection, transport, flooding = await flooded(served, sockets, client, may_read)
    transport.abort()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asyncio.wait_for(flooding, 10)
    await served.until_idle()
    # It should leave the backend time to read the messages before, and the close frame.
    may_read.set()
    await sockets.end()
    assert sockets.close_code == 1001
    await connection.close()
