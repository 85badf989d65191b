"""Clients that disconnect, at real sockets: uvicorn with the proxy, and a raw backend."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from tests.proxy.conftest import TableGateway, no_blocking_call
from tests.proxy.sockets.conftest import (
    backend,
    client,
    connect,
    gateway,
    pytest_asyncio_loop_factories,
)
from tests.support.until import until_async
from tests.support.wire import RawClient

__all__ = [
    "backend",
    "client",
    "connect",
    "gateway",
    "no_blocking_call",
    "pytest_asyncio_loop_factories",
]

Disconnect = Callable[[RawClient], None]


def close(client: RawClient) -> None:
    client.writer.close()


def half_close(client: RawClient) -> None:
    # No client that still wants a model's response does this; the system of a dead client does.
    client.writer.write_eof()


def reset(client: RawClient) -> None:
    connection = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.disconnect()


@pytest.fixture(params=[close, half_close, reset], ids=lambda way: way.__name__)
def disconnect(request: pytest.FixtureRequest) -> Disconnect:
    """One way for a client to end its connection."""
    way: Disconnect = request.param
    return way


async def until_nothing_is_left(gateway: TableGateway) -> None:
    """Return once no request of a disconnected client is in flight or waits."""
    await until_async(
        lambda: not gateway.in_flight.count("demo") and not gateway.activator.waiters.report(),
        "nothing in flight, and no waiter",
    )
