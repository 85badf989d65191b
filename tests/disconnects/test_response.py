"""Disconnects before the first byte of the response, and mid-stream."""

from __future__ import annotations

import asyncio

import pytest

from tests.disconnects.conftest import Disconnect, until_nothing_is_left
from tests.proxy.conftest import TableGateway
from tests.proxy.sockets.conftest import Connect
from tests.proxy.sockets.test_backpressure import EVENTS, Flood
from tests.support.until import until_async
from tests.support.wire import Play, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'


async def before_the_first_byte(session: Session) -> None:
    await session.request()
    await session.until_closed()


async def mid_stream(session: Session) -> None:
    await session.request()
    await session.send(EVENTS + b"9\r\ndata: 1\n\n\r\n")
    await session.until_closed()


@pytest.mark.parametrize(
    "script", [before_the_first_byte, mid_stream], ids=lambda script: script.__name__
)
async def test_disconnect_closes_the_request_to_the_backend(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    script: Play,
    disconnect: Disconnect,
) -> None:
    backend.script = script
    client.post(CHAT, MODEL)
    await until_async(lambda: len(backend.requests) == 1, "the request there")
    assert gateway.in_flight.count("demo") == 1
    disconnect(client)
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")
    await until_nothing_is_left(gateway)


async def test_disconnect_with_another_request_in_line_closes_the_first_too(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    backend.script = mid_stream
    client.post(CHAT, MODEL)
    await until_async(lambda: len(backend.requests) == 1, "the request there")
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.05)
    client.disconnect()
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")


async def test_disconnect_of_a_client_that_does_not_read_is_noticed(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    flood = Flood(backend)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.post(CHAT, MODEL)
    await until_async(lambda: flood.sent > 0, "the flood begun")
    await flood.until_blocked()
    client.disconnect()
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")
    await until_nothing_is_left(gateway)


async def test_a_thousand_disconnects_at_once_close_a_thousand_requests(
    connect: Connect, backend: RawBackend, gateway: TableGateway
) -> None:
    backend.script = mid_stream
    clients = [await connect() for _ in range(1000)]
    for client in clients:
        client.post(CHAT, MODEL)
    await until_async(lambda: len(backend.requests) == 1000, "all requests there")
    for client in clients:
        client.disconnect()
    await until_async(lambda: backend.closed == 1000, "all connections to the backend closed")
    await until_nothing_is_left(gateway)
