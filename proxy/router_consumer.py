"""The consumer of llama.cpp's router API at the root: health, properties, load and unload."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from django.db import DatabaseError

from instances import desired_state
from instances.activation_hold import refuse_after_stop, refuse_while_held
from instances.errors import InstanceNotRunning
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.errors import DatabaseUnavailable, InvalidKey, MissingKey
from proxy import errors
from proxy.auth import authorise_by
from proxy.body.body import read_beginning
from proxy.body.json_model import json_model
from proxy.consumers import MAX_UNREAD_BODY_BYTES, ProxyConsumer
from proxy.gateway import Gateway
from proxy.routes import router_api
from proxy.routes.routes import RouteKind
from proxy.table.table import KeyRule, RoutingTable, Target

ROUTER_KINDS = (RouteKind.HEALTH, RouteKind.ROUTER_API)
LOAD_PATH = "/models/load"
MANAGEMENT_API = "api"
"""Origin of a start or stop that a management key requests, as in ``instances.api.views``."""


class RouterConsumer(ProxyConsumer):
    """One request of the router API, answered from the table where no backend is needed."""

    _is_manager = False
    """Whether the request, as last looked at, may use the management API."""

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
        try:
            if self.route.rest == LOAD_PATH:
                await gateway.load(target.name, self._origin, may_evict=self._may_evict_for(target))
            else:
                await gateway.unload(target.name, self._origin)
        except DatabaseError:
            raise DatabaseUnavailable from None
        await self._answer(send, 200, router_api.DONE)

    def _find_controlled(
        self, table: RoutingTable, scope: Scope, model: str
    ) -> tuple[Target, str | None]:
        """The target of the model, whose state the key may change and the request does."""
        found = self._find_by_model(table, scope, model)
        target = found[0]
        self._is_manager = _is_manager(table, self.gateway, scope)
        if not self._is_manager:
            self._check_right(self._rule(table, scope), target)
        is_running = desired_state.should_run(target)
        if _is_instance(target, model) and is_running == (self.route.rest == LOAD_PATH):
            raise errors.ModelStateUnchanged(is_running=is_running)
        if not _is_instance(target, model) and not target.is_llama_server:
            raise errors.NotLlamaCpp(target.name)
        return found

    def _check_right(self, rule: KeyRule, target: Target) -> None:
        """Refuse a key without the right, and a load that a request of the key may not cause."""
        is_load = self.route.rest == LOAD_PATH
        if not (rule.may_start(target) if is_load else rule.may_stop(target)):
            raise errors.ControlNotPermitted(
                self.route.rest, "can_start" if is_load else "can_stop"
            )
        if is_load and not desired_state.should_run(target):
            now = datetime.now(UTC)
            refuse_while_held(target, now)
            refuse_after_stop(target, now)
            if not target.on_demand_start:
                raise InstanceNotRunning(
                    f"instance {target.name} is not running and on-demand start is not enabled;"
                    " a management key starts it"
                )

    @property
    def _origin(self) -> str:
        """The origin of a requested start or stop, as it is shown and logged."""
        return MANAGEMENT_API if self._is_manager else f"proxy:{self.route.rest.rpartition('/')[2]}"

    def _may_evict_for(self, target: Target) -> bool:
        rule = self.exchange.rule
        return self._is_manager or rule is None or rule.may_evict_for(target)


def _is_manager(table: RoutingTable, gateway: Gateway, scope: Scope) -> bool:
    """Whether the request may use the management API."""
    try:
        authorise_by(table, gateway, scope, is_management=True)
    except (InvalidKey, MissingKey):
        return False
    return True


def _is_instance(target: Target, model: str) -> bool:
    """Whether the model is the instance itself, and not a model of an instance in router mode."""
    return model == target.name or model in target.aliases
