"""The lean consumer: authorise, find the target, make sure it runs, stream."""

from __future__ import annotations

import logging

from channels.consumer import AsyncConsumer
from django.db import DatabaseError

from instances.errors import InstanceNotFound, InstanceNotRunning
from llamactl.asgi_types import Receive, Scope, Send
from llamactl.errors import LlamactlError, MethodNotAllowed
from proxy import errors
from proxy.admission import authorise, target_named
from proxy.body import ClientGone, model_in, read_body, with_model
from proxy.credentials import without_key
from proxy.gateway import Gateway
from proxy.headers import to_backend
from proxy.models_list import models
from proxy.routing import Route, Side
from proxy.stream import HangUpWatch, relay
from proxy.table import KeyRule, Target
from proxy.upstream import BackendError, Refused, Unanswered

logger = logging.getLogger(__name__)

MAX_TARGET_BYTES = 8000
"""cpp-httplib refuses longer request lines by closing the connection, as a dead backend would."""

REPLACED_WITHIN_SECONDS = 2.0
"""How long a supervisor may take to notice that a backend is gone."""


class ProxyConsumer(AsyncConsumer):  # type: ignore[misc] # channels has no types
    """One request to a backend.

    A Channels consumer with a dispatch of its own: the stock one handles no message while a
    handler runs, so it can't see a client leave, and it listens on the channel layer for every
    request.
    """

    def __init__(self, gateway: Gateway, route: Route) -> None:
        self.gateway = gateway
        self.route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; any refusal becomes an error in the shape its path asks for."""
        try:
            if not self.gateway.is_started:
                await self.gateway.start()
            await self._handle(scope, receive, send)
        except ClientGone:
            return
        except LlamactlError as error:
            await answer_error(scope, send, error)
        except DatabaseError as error:
            logger.warning("a start could not be asked for: %s", error)
            await answer_error(scope, send, errors.StartNotAsked())

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS" and self.route.side is not Side.INSTANCE:
            await _answer(send, 204, b"", (b"allow", b"GET, POST, OPTIONS"))
            return
        rule = await authorise(self.gateway, scope, is_management=self.route.side is Side.INSTANCE)
        if self.route.side is Side.MODELS:
            _check_method(scope, "GET", "HEAD")
            body = await models(self.gateway.live.table, rule, self.gateway.upstream)
            await _answer(send, 200, body)
            return
        if self.route.side is Side.INFERENCE:
            _check_method(scope, "POST")
        if len(scope["query_string"]) + len(self.route.rest) > MAX_TARGET_BYTES:
            raise errors.UriTooLong(MAX_TARGET_BYTES)
        body = await read_body(receive, scope["headers"], self.gateway.max_body_bytes)
        async with HangUpWatch(receive):
            try:
                target, body = self._find_target(rule, body)
            except (errors.ModelNotFound, InstanceNotFound):
                await self.gateway.look_again()
                target, body = self._find_target(rule, body)
            await self._forward(scope, send, target, body, rule)

    def _find_target(self, rule: KeyRule, body: bytes) -> tuple[Target, bytes]:
        """The target, and the body as its backend is to get it."""
        table = self.gateway.live.table
        if self.route.side is Side.INSTANCE:
            return target_named(table, self.route.instance), body
        model = model_in(body)
        found = table.route(model)
        if found is None:
            raise errors.ModelNotFound(model)
        target, served_model = found
        if not rule.allows(target):
            raise errors.PermissionDenied
        return target, body if served_model is None else with_model(body, served_model)

    async def _forward(
        self, scope: Scope, send: Send, target: Target, body: bytes, rule: KeyRule
    ) -> None:
        """Send the request to the target and relay the answer.

        1. Make sure that it runs.
        2. Send it, once more on a fresh connection if a kept one was closed under it unanswered.
        3. Where nothing listens any more, the backend has just died: wait for what its supervisor
           makes of that, and begin again, once. A request that kills its backend is thus sent
           twice at most.
        """
        gateway = self.gateway
        headers = to_backend(scope["headers"], target.authorization)
        path = _path_and_query(self.route.rest, scope["query_string"])
        was_sent = was_refused = False
        while True:
            target = await self._ready(target, rule)
            # No await between the look at the table and this count; see InFlight.carrying.
            with gateway.in_flight.carrying(target.name) as carried:
                try:
                    response = await gateway.upstream.open(
                        target,
                        method=scope["method"],
                        path_and_query=path,
                        headers=headers,
                        body=body,
                        fresh=was_sent,
                    )
                except BackendError as error:
                    logger.info("no answer: %s", error, extra={"instance": target.name})
                    is_final = was_sent if isinstance(error, Unanswered) else was_refused
                    if is_final or not isinstance(error, Refused | Unanswered):
                        raise _unreachable(target) from error
                    was_sent |= isinstance(error, Unanswered)
                    was_refused |= isinstance(error, Refused)
                else:
                    carried.content = response.content
                    async with response:
                        await relay(
                            response,
                            send,
                            instance=target.name,
                            added_headers=target.response_headers,
                        )
                    return
            if was_refused:
                target = await gateway.waiting.replaced(
                    target, within_seconds=REPLACED_WITHIN_SECONDS
                )

    async def _ready(self, target: Target, rule: KeyRule) -> Target:
        if self.route.side is not Side.INSTANCE:
            return await self.gateway.waiting.ready(target, rule.id)
        if not target.is_ready:
            raise InstanceNotRunning(f"instance {target.name} is not running; start it first")
        return target


def _unreachable(target: Target) -> errors.BackendUnreachable:
    return errors.BackendUnreachable(
        f"the backend of {target.name} does not answer; see GET"
        f" /api/v1/instances/{target.name}/logs"
    )


def _check_method(scope: Scope, *allowed: str) -> None:
    if scope["method"] not in allowed:
        raise MethodNotAllowed(
            f"{scope['method']} is not possible on {scope['path'][:200]};"
            f" use {' or '.join(allowed)}"
        )


def _path_and_query(path: str, query: bytes) -> str:
    kept = without_key(query)
    return f"{path}?{kept.decode('latin-1')}" if kept else path


async def answer_error(scope: Scope, send: Send, error: LlamactlError) -> None:
    status, headers, body = errors.render(scope["path"], error)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer(send: Send, status: int, body: bytes, *further: tuple[bytes, bytes]) -> None:
    headers = list(further)
    if body:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
