"""The consumer of llama.cpp's router API at the root: health, properties, load and unload."""

from __future__ import annotations

import orjson
from django.db import DatabaseError

from instances import desired_state
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.errors import DatabaseUnavailable, InvalidKey, MissingKey
from proxy import errors
from proxy.auth import authorise_by
from proxy.body.body import read_beginning
from proxy.body.json_model import json_model
from proxy.consumers import MAX_UNREAD_BODY_BYTES, ProxyConsumer
from proxy.routes import router_api
from proxy.routes.routes import RouteKind
from proxy.table.table import RoutingTable, Target

ROUTER_KINDS = (RouteKind.HEALTH, RouteKind.ROUTER_API)
LOAD_PATH = "/models/load"


class RouterConsumer(ProxyConsumer):
    """One request of the router API, answered from the table where no backend is needed."""

    async def _answer_by_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.route.kind is RouteKind.HEALTH:
            await self._answer(send, 200, router_api.HEALTHY)
            return
        body = await read_beginning(
            receive,
            scope["headers"],
            MAX_UNREAD_BODY_BYTES,
            whole_limit=MAX_UNREAD_BODY_BYTES,
            turns=self.gateway.turns,
            may_stream=False,
            hold=self._hold,
        )
        assert isinstance(body, bytes)  # noqa: S101 - only streamed bodies are uploads
        if self.route.rest == "/props":
            await self._show_props(scope, receive, send)
        else:
            await self._change_state(scope, receive, send, body)

    async def _show_props(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The properties of a running backend, or those of llamactl as a router."""
        gateway = self.gateway
        model = router_api.model_in(scope["query_string"])
        if not model:
            table = gateway.live.table
            await self._answer(send, 200, router_api.router_props(table, self._rule(table, scope)))
            return
        target, served = await gateway.recheck.before_refusal(self._find_by_model, scope, model)
        if not target.is_llama_server:
            raise errors.NoProperties(target.name)
        query = router_api.props_query(None if _is_instance(target, model) else served)
        scope["query_string"] = query
        async with gateway.disconnects.watch(receive) as watch:
            await self._forward(scope, send, target, b"", watch)

    async def _change_state(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Request the start or the stop of an instance, or have a router load its model."""
        gateway = self.gateway
        model = (await json_model(body, gateway.turns)).model
        async with gateway.disconnects.watch(receive) as watch:
            target, served = await gateway.recheck.before_refusal(
                self._find_controlled, scope, model
            )
            if not _is_instance(target, model):
                body = orjson.dumps({"model": served})
                await self._forward(scope, send, target, body, watch)
                return
        change = gateway.load if self.route.rest == LOAD_PATH else gateway.unload
        try:
            await change(target.name)
        except DatabaseError:
            raise DatabaseUnavailable from None
        await self._answer(send, 200, router_api.DONE)

    def _find_controlled(
        self, table: RoutingTable, scope: Scope, model: str
    ) -> tuple[Target, str | None]:
        """The target of the model, whose state the key may change and the request does."""
        found = self._find_by_model(table, scope, model)
        try:
            authorise_by(table, self.gateway, scope, is_management=True)
        except (InvalidKey, MissingKey):
            raise errors.ControlNotPermitted(self.route.rest) from None
        target = found[0]
        is_running = desired_state.should_run(target)
        if _is_instance(target, model) and is_running == (self.route.rest == LOAD_PATH):
            raise errors.ModelStateUnchanged(is_running=is_running)
        if not _is_instance(target, model) and not target.is_llama_server:
            raise errors.NotLlamaCpp(target.name)
        return found


def _is_instance(target: Target, model: str) -> bool:
    """Whether the model is the instance itself, and not a model of an instance in router mode."""
    return model == target.name or model in target.aliases
