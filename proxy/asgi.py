"""The outermost ASGI application: dispatch by path, and the server's lifespan."""

from __future__ import annotations

import gc
import logging

from llamactl.core.asgi_types import Application, Receive, Scope, Send
from proxy import websocket
from proxy.consumers import ProxyConsumer
from proxy.gateway import Gateway
from proxy.routes.routes import Route, route

logger = logging.getLogger(__name__)


class ProxyApplication:
    """Requests that the proxy routes go to its consumer, the others to ``rest``."""

    def __init__(self, rest: Application, gateway: Gateway | None = None) -> None:
        self._rest = rest
        self.gateway = gateway or Gateway()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = _route(scope)
            if found is not None:
                await ProxyConsumer(self.gateway, found)(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        elif scope["type"] == "websocket":
            # Also those of unknown paths: Django knows HTTP alone and would raise.
            await websocket.carry(self.gateway, _route(scope), scope, receive, send)
            return
        await self._rest(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start with the server, so that the first request finds a table; end with it."""
        await receive()
        try:
            await self.gateway.start()
        except Exception as error:
            logger.exception("the proxy can't start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        # What is here now stays for good: without this each full collection walks all of Django
        # and stops every stream for a tenth of a second, about twice a second under load.
        gc.collect()
        gc.freeze()
        # The default, a collection for each 700 objects made and not yet dropped, is one for each
        # request, and a tenth of its time. What we make is nearly all freed without.
        gc.set_threshold(50_000, 20, 100)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _route(scope: Scope) -> Route | None:
    raw_path: bytes | None = scope.get("raw_path")
    return route(raw_path.decode("latin-1") if raw_path else scope["path"])
