"""Disconnects before the request is routed, while its body is read."""

from __future__ import annotations

import asyncio

from proxy.exchange import Exchange, Outcome
from tests.disconnects.conftest import Disconnect, until_nothing_is_left
from tests.proxy.conftest import TableGateway
from tests.support.until import until_async
from tests.support.wire import RawBackend, RawClient


async def test_request_whose_body_breaks_off_reaches_no_backend(
    client: RawClient, backend: RawBackend, gateway: TableGateway, disconnect: Disconnect
) -> None:
    ended: list[Exchange] = []
    gateway.observers.append(ended.append)
    client.ask(b"POST /v1/chat/completions", b"Content-Length: 1000", body=b'{"model":"demo",')
    await client.writer.drain()
    await asyncio.sleep(0.05)
    disconnect(client)
    await until_async(lambda: ended, "the end of the exchange")
    assert [exchange.outcome for exchange in ended] == [Outcome.CLIENT_DISCONNECTED]
    assert not backend.connections
    await until_nothing_is_left(gateway)
