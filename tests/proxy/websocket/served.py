"""llamactl's layers, served by uvicorn as in production, in a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import threading
from typing import Any

import uvicorn

from llamactl.config import AppConfig
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.middleware.cors import CrossOrigin
from llamactl.middleware.origin_guard import OriginGuard
from llamactl.server.web.server import uvicorn_config
from proxy.asgi import ProxyApplication
from tests.proxy.conftest import MANAGER, TableGateway, make_target

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
