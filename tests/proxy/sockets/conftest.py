"""A bare client socket, a real uvicorn with our protocol and proxy, and a bare backend socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from llamactl.config import AppConfig
from llamactl.server.web.http import HttpProtocol
from proxy.asgi import ProxyApplication
from tests.proxy.conftest import TableGateway, make_target
from tests.support.wire import RawBackend, RawClient

Connect = Callable[[], Awaitable[RawClient]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of a web process: transports of other loops end differently."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def backend() -> AsyncIterator[RawBackend]:
    backend = RawBackend()
    await backend.start()
    yield backend
    await backend.stop()


@pytest.fixture
async def gateway(backend: RawBackend, config: AppConfig) -> AsyncIterator[TableGateway]:
    """One llama-server that runs, called demo."""
    gateway = TableGateway(config)
    gateway.max_body_bytes = 2**20
    gateway.lay(make_target(backend.origin, is_llama_server=True))
    yield gateway
    await gateway.upstream.close()


async def rest(scope: Any, receive: Any, send: Any) -> None:
    """Stands for Django: says that a request came there, and to which path."""
    body = b"elsewhere: " + scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def connect(gateway: TableGateway) -> AsyncIterator[Connect]:
    """Open a connection to llamactl."""
    config = uvicorn.Config(
        ProxyApplication(rest, gateway),
        log_config=None,
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="websockets-sansio",
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    clients: list[RawClient] = []

    async def connect() -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        clients.append(RawClient(reader, writer))
        return clients[-1]

    yield connect
    for client in clients:
        client.disconnect()
    server.close()
    for task in list(state.tasks):
        task.cancel()
    await asyncio.gather(*state.tasks, return_exceptions=True)


@pytest.fixture
async def client(connect: Connect) -> RawClient:
    return await connect()
