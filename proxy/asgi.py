"""The ASGI application of the proxy: dispatch by path, and the server's lifespan."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping

from llamactl.core.asgi_types import Application, Receive, Scope, Send
from proxy.consumers import ProxyConsumer
from proxy.gateway import Gateway
from proxy.router_consumer import ROUTER_KINDS, RouterConsumer
from proxy.routes.routes import Route, route
from proxy.websocket import handshake

logger = logging.getLogger(__name__)


class ProxyApplication:
    """Passes requests with a route to the proxy's consumer, and other requests to ``rest``."""

    def __init__(
        self,
        rest: Application,
        gateway: Gateway | None = None,
        sockets: Mapping[str, Application] | None = None,
    ) -> None:
        """``sockets``: path → the application of its WebSockets."""
        self._rest = rest
        self._sockets = sockets or {}
        self.gateway = gateway or Gateway()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = _route(scope)
            if found is not None:
                consumer = RouterConsumer if found.kind in ROUTER_KINDS else ProxyConsumer
                await consumer(self.gateway, found, scope)(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        elif scope["type"] == "websocket":
            own = self._sockets.get(scope["path"])
            if own is not None:
                await own(scope, receive, send)
                return
            # WebSockets at unknown paths too: Django knows HTTP alone and would raise.
            await handshake.serve(self.gateway, _route(scope), scope, receive, send)
            return
        await self._rest(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start the gateway with the server, so that the first request finds a table."""
        await receive()
        try:
            await self.gateway.start()
        except Exception as error:
            logger.exception("the proxy can't start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        # The objects made so far stay for good. Unfrozen, each full collection walks all of Django
        # and stops every stream for a tenth of a second, about twice a second under load.
        gc.collect()
        gc.freeze()
        # The default threshold, a collection for each 700 objects made and not yet dropped, means
        # one for each request, and a tenth of its time. Nearly all our objects are freed without.
        gc.set_threshold(50_000, 20, 100)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _route(scope: Scope) -> Route | None:
    raw_path: bytes | None = scope.get("raw_path")
    return route(raw_path.decode("latin-1") if raw_path else scope["path"])
