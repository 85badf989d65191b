"""The lean consumer: authorise, find the target, make sure it runs, stream."""

from __future__ import annotations

import logging
from time import perf_counter

from channels.consumer import AsyncConsumer
from django.db import DatabaseError

from instances.errors import InstanceNotFound, InstanceNotRunning
from instances.options import validate_name
from llamactl.asgi_types import Receive, Scope, Send
from llamactl.errors import LlamactlError
from llamactl.response_headers import keep
from proxy import errors, web_ui
from proxy.admission import authorise, target_named
from proxy.body import ClientGone, model_in, read_beginning, read_routed, with_model
from proxy.credentials import without_key
from proxy.form import ModelField
from proxy.gateway import Gateway
from proxy.headers import to_backend
from proxy.models_list import model, models
from proxy.routing import Route, Side, counts_as_use, may_start
from proxy.stream import first_piece, relay, response_start
from proxy.table import ANYONE, KeyRule, Target
from proxy.upload import Upload
from proxy.upstream import BackendError, Refused, Stalled, Unanswered

logger = logging.getLogger(__name__)

MAX_TARGET_BYTES = 8000
"""cpp-httplib refuses longer request lines by closing the connection, as a dead backend would."""

REPLACED_WITHIN_SECONDS = 2.0
"""How long a supervisor may take to notice that a backend is gone."""

# RFC 9110, section 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

_OPEN_SIDES = (Side.WEB_UI, Side.TO_WEB_UI)
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
        self._instance: str | None = None
        self._has_begun = False
        """Whether the client may have got a part of the answer."""

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
        except Exception:
            logger.exception("a request failed on us", extra={"instance": self._instance})
            # Else the server cuts the connection, for an answer that was not ended.
            if not self._has_begun:
                await answer_error(scope, send, errors.Unexpected())

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, method = self.route, scope["method"]
        possible = route.methods
        if method == "OPTIONS" and possible is not None:
            allowed = ", ".join((*possible, "OPTIONS")).encode()
            await _answer(send, 204, b"", (b"allow", allowed))
            return
        rule, max_body_bytes = ANYONE, 0
        if route.side not in _OPEN_SIDES:
            rule = await authorise(self.gateway, scope, is_management=route.side is Side.INSTANCE)
            max_body_bytes = self.gateway.max_body_bytes
        if route.side is Side.NOWHERE:
            raise errors.NothingThere(scope["path"])
        if possible is not None and method not in possible:
            raise errors.MethodNotPossible(method, scope["path"], possible)
        if route.side is Side.MODELS:
            await _answer(send, 200, await self._models(rule))
            return
        if len(scope["query_string"]) + len(route.rest) > MAX_TARGET_BYTES:
            raise errors.UriTooLong(MAX_TARGET_BYTES)
        if route.side is Side.TO_WEB_UI:
            # Relative, so that it is also right behind a proxy that serves us below a prefix.
            there = _path_and_query(f"{validate_name(route.instance)}/", scope["query_string"])
            await _answer(send, 307, b"", (b"location", there.encode("latin-1")))
            return
        if route.side is Side.INFERENCE:
            await self._by_model(scope, receive, send, rule)
        else:
            await self._by_name(scope, receive, send, rule, max_body_bytes)

    async def _by_model(self, scope: Scope, receive: Receive, send: Send, rule: KeyRule) -> None:
        limit = self.gateway.max_body_bytes
        body, field = await read_routed(receive, scope["headers"], limit)
        upload = body if isinstance(body, Upload) else None
        async with self.gateway.hang_ups.watch(receive, upload):
            try:
                target, body = self._find_by_model(rule, body, field)
            except errors.ModelNotFound:
                await self.gateway.look_again()
                target, body = self._find_by_model(rule, body, field)
            await self._forward(scope, send, target, body, rule)

    async def _models(self, rule: KeyRule) -> bytes:
        gateway = self.gateway
        if not self.route.rest:
            return await models(gateway.live.table, rule, gateway.upstream)
        try:
            return await model(gateway.live.table, rule, gateway.upstream, self.route.rest)
        except errors.ModelNotFound:
            await gateway.look_again()
            return await model(gateway.live.table, rule, gateway.upstream, self.route.rest)

    async def _by_name(
        self, scope: Scope, receive: Receive, send: Send, rule: KeyRule, max_body_bytes: int
    ) -> None:
        # Nothing of the body is needed here. Who manages instances may send a backend as much as
        # they like; who only uses them may not fill the memory that it reads a body into.
        is_bounded = self.route.side is not Side.INSTANCE
        body = await read_beginning(
            receive, scope["headers"], max_body_bytes if is_bounded else None
        )
        upload = body if isinstance(body, Upload) else None
        async with self.gateway.hang_ups.watch(receive, upload):
            try:
                target = self._find_by_name(rule)
            except InstanceNotFound:
                await self.gateway.look_again()
                target = self._find_by_name(rule)
            await self._forward(scope, send, target, body, rule)

    def _find_by_name(self, rule: KeyRule) -> Target:
        target = target_named(self.gateway.live.table, self.route.instance)
        if not rule.allows(target):
            raise errors.PermissionDenied
        if self.route.side is not Side.INSTANCE and not target.is_llama_server:
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
            raise errors.PermissionDenied
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
        """Send the request to the target and relay the answer.

        1. Make sure that it runs.
        2. Send it, once more on a fresh connection if a kept one was closed under it unanswered.
        3. Where nothing listens any more, or the fresh one is closed too, the backend is dying:
           wait for what its supervisor makes of that, and begin again, once. A request that kills
           its backend thus kills two at most.

        What may have been received is sent again only where that does no harm: a computation
        (whatever an inference key opens), and idempotent methods. Behind the management proxy a
        POST may run a tool on the node; that one, and an upload, which is gone once it went
        through, get a connection of their own, so that none is closed under them unanswered. To
        where nothing listens nothing was sent: that is tried again for all.
        """
        began_at = perf_counter()
        self._instance = target.name
        gateway, is_web_ui = self.gateway, self.route.side is Side.WEB_UI
        if is_web_ui:
            headers = web_ui.request_headers(scope["headers"])
            send = web_ui.as_accepted(scope["headers"], send)
        else:
            headers = to_backend(scope["headers"], target.authorization)
        method = scope["method"]
        if self.route.endpoint is not None:
            method = self.route.endpoint[method].sent_as
            body = body if method != "GET" else b""
        path = _path_and_query(self.route.rest, scope["query_string"])
        is_repeatable = isinstance(body, bytes) and (
            self.route.side is not Side.INSTANCE or method in _IDEMPOTENT
        )
        was_sent = was_replaced = False
        loaded_seconds = 0.0
        while True:
            if not target.is_ready:
                waits_since = perf_counter()
                target = await self._ready(target, rule, scope["method"])
                # It may have come when the load was half done, or have waited for room before.
                waited_seconds = perf_counter() - waits_since
                loaded_seconds += min(waited_seconds, target.load_seconds or 0.0)
            # No await between the look at the table and this count; see InFlight.carrying.
            is_use = counts_as_use(self.route, scope["method"])
            with gateway.in_flight.carrying(target.name, is_use=is_use) as carried:
                sent_at = perf_counter()
                first = None
                try:
                    answer = await gateway.upstream.open(
                        target,
                        method=method,
                        path_and_query=path,
                        headers=headers,
                        body=body,
                        fresh=was_sent or was_replaced or not is_repeatable,
                    )
                    if is_repeatable and method == "POST":
                        first = await first_piece(answer, gateway.upstream.limits)
                except BackendError as error:
                    logger.info("no answer: %s", error, extra={"instance": target.name})
                    may_be_sent = isinstance(error, Refused) or (
                        isinstance(error, Unanswered) and is_repeatable
                    )
                    if was_replaced or not may_be_sent:
                        raise _no_answer(target, error) from error
                    # Without its frames: this one would hold it and be held, with the whole body.
                    failure = error.with_traceback(None)
                else:
                    carried.content = answer
                    async with answer:
                        if is_web_ui and answer.status in (401, 404):
                            raise errors.NoWebUI(target.name, self.route.rest)
                        if target.response_headers:
                            keep(scope, target.response_headers)
                        start = response_start(
                            answer,
                            target.response_headers,
                            queued_seconds=sent_at - began_at - loaded_seconds,
                            loaded_seconds=loaded_seconds,
                            answered_seconds=perf_counter() - sent_at,
                        )
                        self._has_begun = True
                        await send(start)
                        await relay(
                            answer,
                            send,
                            first=first,
                            instance=target.name,
                            path=self.route.rest,
                            limits=gateway.upstream.limits,
                        )
                    return
            if was_sent or isinstance(failure, Refused):
                before, was_replaced = target, True
                target = await gateway.waiting.replaced(
                    before, within_seconds=REPLACED_WITHIN_SECONDS
                )
                if isinstance(failure, Unanswered) and target == before:
                    raise _no_answer(target, failure) from failure
            was_sent |= isinstance(failure, Unanswered)

    async def _ready(self, target: Target, rule: KeyRule, method: str) -> Target:
        if not may_start(self.route, method):
            raise InstanceNotRunning(f"instance {target.name} is not running; start it first")
        return await self.gateway.waiting.ready(target, rule.id)


def _no_answer(target: Target, error: BackendError) -> LlamactlError:
    logs = f"see GET /api/v1/instances/{target.name}/logs"
    if isinstance(error, Stalled):
        return errors.BackendStalled(f"the backend of {target.name} is silent ({error}); {logs}")
    if isinstance(error, Refused | Unanswered):
        return errors.BackendUnreachable(f"the backend of {target.name} does not answer; {logs}")
    return errors.BackendUnreachable(
        f"what the backend of {target.name} answered is no HTTP/1.1; {logs}"
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
