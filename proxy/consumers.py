"""The lean consumer: what is asked for, by whom, and of which instance?"""

from __future__ import annotations

import logging

from channels.consumer import AsyncConsumer
from django.db import DatabaseError

from instances.errors import InstanceNotFound
from instances.names import validate_name
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.error_response import send_error
from llamactl.core.errors import LlamactlError, MethodNotAllowed, UnexpectedFailure
from proxy import errors
from proxy.auth import authorise, target_named
from proxy.body.body import ClientDisconnected, model_in, read_beginning, read_routed, with_model
from proxy.body.multipart import ModelField
from proxy.body.upload import Upload
from proxy.forward import Forwarding, path_and_query
from proxy.gateway import Gateway
from proxy.routes.models import model, models
from proxy.routes.routes import Route, RouteKind
from proxy.table.table import ANYONE, KeyRule, Target

logger = logging.getLogger(__name__)

MAX_TARGET_BYTES = 8000
"""cpp-httplib refuses longer request lines by closing the connection, as a dead backend would."""

_OPEN_SIDES = (RouteKind.WEB_UI, RouteKind.TO_WEB_UI)
"""These ask for no key, and take no body."""


class ProxyConsumer(AsyncConsumer):  # type: ignore[misc] # channels has no types
    """One request to a backend.

    A Channels consumer with a dispatch of its own: the stock one handles no message while a
    handler runs, so it can't see a client leave, and it listens on the channel layer for every
    request.
    """

    def __init__(self, gateway: Gateway, route: Route) -> None:
        self.gateway = gateway
        self.route = route
        self._forwarding: Forwarding | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; any refusal becomes an error in the shape its path asks for."""
        try:
            if not self.gateway.is_started:
                await self.gateway.start()
            await self._handle(scope, receive, send)
        except ClientDisconnected:
            return
        except LlamactlError as error:
            await send_error(scope, send, error)
        except DatabaseError as error:
            logger.warning("a start could not be asked for: %s", error)
            await send_error(scope, send, errors.StartNotRequested())
        except Exception:
            forwarding = self._forwarding
            name = None if forwarding is None else forwarding.target.name
            logger.exception("a request failed on us", extra={"instance": name})
            # Else the server cuts the connection, for an answer that was not ended.
            if forwarding is None or not forwarding.has_begun:
                await send_error(scope, send, UnexpectedFailure())

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, method = self.route, scope["method"]
        possible = route.methods
        if method == "OPTIONS" and possible is not None:
            allowed = ", ".join((*possible, "OPTIONS")).encode()
            await _answer(send, 204, b"", (b"allow", allowed))
            return
        rule = await self._rule(scope)
        max_body_bytes = self.gateway.max_body_bytes if route.side not in _OPEN_SIDES else 0
        if route.side is RouteKind.NOWHERE:
            raise errors.PathNotExposed(scope["path"])
        if possible is not None and method not in possible:
            raise MethodNotAllowed(method, scope["path"], possible)
        if route.side is RouteKind.MODELS:
            await _answer(send, 200, await self._models(scope, rule))
            return
        if len(scope["query_string"]) + len(route.rest) > MAX_TARGET_BYTES:
            raise errors.UriTooLong(MAX_TARGET_BYTES)
        if route.side is RouteKind.TO_WEB_UI:
            # Relative, so that it is also right behind a proxy that serves us below a prefix.
            there = path_and_query(f"{validate_name(route.instance)}/", scope["query_string"])
            await _answer(send, 307, b"", (b"location", there.encode("latin-1")))
            return
        if route.side is RouteKind.INFERENCE:
            await self._by_model(scope, receive, send, rule)
        else:
            await self._by_name(scope, receive, send, rule, max_body_bytes)

    async def _rule(self, scope: Scope) -> KeyRule:
        if self.route.side in _OPEN_SIDES:
            return ANYONE
        is_management = self.route.side is RouteKind.INSTANCE
        return await authorise(self.gateway, scope, is_management=is_management)

    async def _rule_now(self, scope: Scope) -> KeyRule:
        """Look again, before a request is refused for what may have been changed a moment ago."""
        await self.gateway.look_again()
        return await self._rule(scope)

    async def _by_model(self, scope: Scope, receive: Receive, send: Send, rule: KeyRule) -> None:
        limit = self.gateway.max_body_bytes
        body, field = await read_routed(receive, scope["headers"], limit)
        upload = body if isinstance(body, Upload) else None
        async with self.gateway.hang_ups.watch(receive, upload):
            try:
                target, body = self._find_by_model(rule, body, field)
            except (errors.ModelNotFound, errors.InstanceNotPermitted):
                rule = await self._rule_now(scope)
                target, body = self._find_by_model(rule, body, field)
            await self._forward(scope, send, target, body, rule)

    async def _models(self, scope: Scope, rule: KeyRule) -> bytes:
        gateway = self.gateway
        if not self.route.rest:
            return await models(gateway.live.table, rule, gateway.upstream)
        try:
            return await model(gateway.live.table, rule, gateway.upstream, self.route.rest)
        except (errors.ModelNotFound, errors.InstanceNotPermitted):
            rule = await self._rule_now(scope)
            return await model(gateway.live.table, rule, gateway.upstream, self.route.rest)

    async def _by_name(
        self, scope: Scope, receive: Receive, send: Send, rule: KeyRule, max_body_bytes: int
    ) -> None:
        # Nothing of the body is needed here. Who manages instances may send a backend as much as
        # they like; who only uses them may not fill the memory that it reads a body into.
        is_bounded = self.route.side is not RouteKind.INSTANCE
        body = await read_beginning(
            receive, scope["headers"], max_body_bytes if is_bounded else None
        )
        upload = body if isinstance(body, Upload) else None
        async with self.gateway.hang_ups.watch(receive, upload):
            try:
                target = self._find_by_name(rule)
            except (InstanceNotFound, errors.InstanceNotPermitted, errors.NotLlamaCpp):
                rule = await self._rule_now(scope)
                target = self._find_by_name(rule)
            await self._forward(scope, send, target, body, rule)

    def _find_by_name(self, rule: KeyRule) -> Target:
        target = target_named(self.gateway.live.table, self.route.instance)
        if not rule.allows(target):
            raise errors.InstanceNotPermitted
        if self.route.side is not RouteKind.INSTANCE and not target.is_llama_server:
            raise errors.NotLlamaCpp(target.name)
        return target

    def _find_by_model(
        self, rule: KeyRule, body: bytes | Upload, field: ModelField | None
    ) -> tuple[Target, bytes | Upload]:
        """The target, and the body as its backend is to get it."""
        read = body.beginning if isinstance(body, Upload) else body
        model = model_in(read) if field is None else field.model
        found = self.gateway.live.table.route(model)
        if found is None:
            raise errors.ModelNotFound(model)
        target, served_model = found
        if not rule.allows(target):
            raise errors.InstanceNotPermitted
        if served_model is None:
            return target, body
        if field is None:
            return target, with_model(read, served_model)
        read = field.replaced(read, served_model)
        if not isinstance(body, Upload):
            return target, read
        body.begin_with(read)
        return target, body

    async def _forward(
        self, scope: Scope, send: Send, target: Target, body: bytes | Upload, rule: KeyRule
    ) -> None:
        self._forwarding = Forwarding(self.gateway, self.route, rule, target, scope, body)
        await self._forwarding.run(send)


async def _answer(send: Send, status: int, body: bytes, *further: tuple[bytes, bytes]) -> None:
    headers = list(further)
    if body:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
