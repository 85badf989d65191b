"""Forwarding of one request to its backend, with activation and retries."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import perf_counter, time

from llamactl.core.asgi_types import Message, Scope, Send
from llamactl.core.errors import LlamactlError
from llamactl.core.links import prefix_of
from llamactl.middleware.response_headers import keep
from proxy import errors
from proxy.auth import refuse_revoked, without_key
from proxy.body.upload import Upload
from proxy.disconnect import DisconnectWatch
from proxy.exchange import Early, Exchange, Outcome
from proxy.gateway import Gateway
from proxy.headers import Pairs, to_backend, with_client_id
from proxy.interruption import broken_off, interruption_of, no_response
from proxy.redirect import with_own_location
from proxy.relay import (
    end_broken_off,
    read_first_piece,
    relay,
    response_start,
    takes_error_event,
)
from proxy.routes import conversations, web_ui
from proxy.routes.router_api import declines_load
from proxy.routes.routes import Route, RouteKind, counts_as_use, may_start
from proxy.table.known_paths import known_path
from proxy.table.table import UNRESTRICTED, Target
from proxy.upstream import (
    BackendError,
    BrokeOff,
    Refused,
    Stalled,
    Unanswered,
    UpstreamResponse,
    without_frames,
)

logger = logging.getLogger(__name__)

CRASH_NOTICE_SECONDS = 5.0
"""How long a supervisor may take to notice that a backend has died."""

# RFC 9110, section 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class ForwardedRequest:
    """A permitted request on its way to its target, and the response on its way back."""

    __slots__ = (
        "_body",
        "_exchange",
        "_gateway",
        "_headers",
        "_is_lookup",
        "_is_repeatable",
        "_is_web_ui",
        "_method",
        "_path",
        "_route",
        "_scope",
        "_send",
        "_target",
        "_watch",
    )

    def __init__(
        self,
        gateway: Gateway,
        exchange: Exchange,
        route: Route,
        target: Target,
        scope: Scope,
        body: bytes | Upload,
        watch: DisconnectWatch,
    ) -> None:
        """``watch``: the block that the request runs in."""
        self._target = target
        self._watch = watch
        self._exchange = exchange
        self._gateway = gateway
        self._route = route
        self._scope = scope
        self._is_web_ui = route.kind is RouteKind.WEB_UI
        self._is_lookup = False
        self._headers = self._headers_for(target)
        method = scope["method"]
        if route.endpoint is not None:
            method = route.endpoint[method].sent_as
            body = body if method != "GET" else b""
        self._method, self._body = method, body
        query = scope["query_string"]
        if route.rest.startswith("/v1/stream") and route.kind is not RouteKind.INSTANCE:
            query = conversations.with_own_query(query, exchange.rule)
            if route.rest == conversations.LOOKUP_PATH:
                self._is_lookup = True
                self._body = body = conversations.with_own_ids(body, exchange.rule)
        self._path = path_and_query(route.rest, query)
        self._is_repeatable = isinstance(body, bytes) and (
            route.kind is not RouteKind.INSTANCE or method in _IDEMPOTENT
        )
        exchange.instance = target.name
        if route.endpoint is not None or route.kind is not RouteKind.INFERENCE:
            exchange.is_use = counts_as_use(route, scope["method"])
        if isinstance(body, Upload):
            exchange.upload = body
        else:
            exchange.bytes_to_backend = len(body)
        exchange.queued_at = perf_counter()

    @property
    def exchange(self) -> Exchange:
        return self._exchange

    @property
    def scope(self) -> Scope:
        return self._scope

    @property
    def route(self) -> Route:
        return self._route

    @property
    def target(self) -> Target:
        return self._target

    @property
    def body(self) -> bytes | Upload:
        return self._body

    @property
    def send(self) -> Send:
        return self._send

    def cancel(self, error: errors.RequestCancelled) -> bool:
        """End the request with the error; returns False if it is ending already."""
        return self._watch.end_with(error)

    async def run(self, send: Send) -> None:
        """Send the request to the target and relay the response.

        1. Make sure that the target is ready.
        2. Send the request; once more on a fresh connection if a kept connection was closed
           without an answer.
        3. If nothing listens any more, or the fresh connection is closed too, the backend is
           dying: wait until its supervisor has noticed, and begin again, once. A request that
           kills its backend thus kills two at most.

        A request that the backend may have received is sent again only if that does no harm: a
        computation (whatever an inference key may reach), or an idempotent method. A POST through
        the instance proxy may run a tool on the node, and the body of an upload is gone once it
        went through. Both get a connection of their own, so that no keep-alive timeout closes it
        under them. A refused connection means that nothing was sent: then every request is tried
        again.
        """
        self._send = send
        if self._is_web_ui:
            send = web_ui.as_accepted(self._scope["headers"], send)
        elif self._is_lookup:
            send = conversations.without_prefix(send, self._exchange.rule)
        was_sent = was_retargeted = False
        while True:
            if not self._target.is_ready:
                await self._make_ready()
            failure = await self._attempt(
                send, fresh=was_sent or was_retargeted or not self._is_repeatable
            )
            if failure is None:
                return
            is_unanswered = isinstance(failure, Unanswered)
            may_be_sent = isinstance(failure, Refused) or (is_unanswered and self._is_repeatable)
            if was_retargeted or not may_be_sent:
                raise await self._no_response(failure) from failure
            if was_sent or not is_unanswered:
                was_retargeted = True
                await self._wait_for_successor(failure)
            was_sent |= is_unanswered

    async def _wait_for_successor(self, failure: BackendError) -> None:
        """Wait until the supervisor has noticed that the backend died.

        Raises BackendUnreachable for a backend that took the request, and is still "running" in the
        table after the time limit.
        """
        before = self._target
        self._retarget(
            await self._gateway.activator.wait_for_change(
                before, within_seconds=CRASH_NOTICE_SECONDS
            )
        )
        if isinstance(failure, Unanswered) and self._target == before:
            raise no_response(before, failure) from failure

    async def _make_ready(self) -> None:
        activator, exchange = self._gateway.activator, self._exchange
        starts = may_start(self._route, self._scope["method"])
        if self._route.kind is RouteKind.ROUTER_API or (
            starts and declines_load(self._scope["query_string"])
        ):
            self._retarget(await activator.require_running(self._target, errors.ModelNotLoaded))
            return
        if not starts:
            self._retarget(await activator.require_running(self._target))
            return
        if not self._target.has_path(self._route.rest):
            self._retarget(
                await self._gateway.recheck.before_refusal(
                    known_path, self._target, self._route.rest
                )
            )
        waits_since = perf_counter()
        rule = exchange.rule if exchange.rule is not None else UNRESTRICTED
        exchange.is_waiting = True
        self._retarget(await activator.activate(self._target, rule))
        exchange.is_waiting = False
        exchange.loaded_at = perf_counter()
        # The request may have come during the load, or have waited in the scheduler's queue first.
        waited_seconds = exchange.loaded_at - waits_since
        exchange.loading_seconds += min(waited_seconds, self._target.load_seconds or 0.0)

    def _retarget(self, target: Target) -> None:
        """Continue with the target as it is after a wait, in which the key may be revoked.

        Raises InvalidKey or InstanceNotPermitted.
        """
        refuse_revoked(self._gateway.live.table, self._exchange.rule, target, time())
        if target.authorization != self._target.authorization:
            self._headers = self._headers_for(target)
        self._target = target

    def _headers_for(self, target: Target) -> Pairs:
        if self._is_web_ui:
            return web_ui.request_headers(self._scope["headers"])
        headers = to_backend(self._scope["headers"], target.authorization)
        if self._exchange.client_id is not None:
            headers = with_client_id(headers, self._exchange.client_id)
        if self._route.kind is RouteKind.INSTANCE:
            return headers
        return conversations.with_own_header(headers, self._exchange.rule)

    async def _attempt(self, send: Send, *, fresh: bool) -> BackendError | None:
        """Send the request once and relay the response; returns why there is no response."""
        exchange, upstream = self._exchange, self._gateway.upstream
        # No await between reading the table and this count; see InFlight.begin.
        self._gateway.in_flight.begin(exchange)
        try:
            exchange.sent_at = perf_counter()
            first_piece = None
            try:
                response = await self._open(fresh=fresh)
                if self._is_repeatable and self._method == "POST":
                    first_piece = response.read_at_once()
                    if first_piece is None:
                        first_piece = await read_first_piece(response, upstream.timeouts)
            except BackendError as error:
                logger.info("no response: %s", error, extra=exchange.log_fields())
                return without_frames(error)
            with response:
                if exchange.early is None:
                    await send(self._response_start(response))
                else:
                    await self._follow(exchange.early, send, response, first_piece)
                try:
                    counted = exchange if self._method == "POST" else None
                    await relay(response, send, first_piece, upstream.timeouts, counted)
                except (BrokeOff, Stalled) as error:
                    exchange.finish(Outcome.BACKEND_FAILED)
                    logger.warning("the backend broke off: %r", error, extra=exchange.log_fields())
                    early = exchange.early
                    if takes_error_event(response) or (early is not None and early.takes_events):
                        refusal = await self._interruption() or broken_off(error)
                        await end_broken_off(send, refusal, path=self._route.rest)
        finally:
            self._gateway.in_flight.end(exchange)
        return None

    async def _follow(
        self, early: Early, send: Send, response: UpstreamResponse, first_piece: bytes | None
    ) -> None:
        """Begin the response, or follow the head that the client has. Raises BackendAnswered."""
        await early.stop()
        if not early.is_begun:
            await send(self._response_start(response))
            return
        self._exchange.first_byte_at = perf_counter()
        await early.accept(response, first_piece)
        self._exchange.response = response

    def _open(self, *, fresh: bool) -> Awaitable[UpstreamResponse]:
        return self._gateway.upstream.open(
            self._target,
            method=self._method,
            path_and_query=self._path,
            headers=self._headers,
            body=self._body,
            fresh=fresh,
        )

    async def _interruption(self) -> LlamactlError | None:
        """The operator's request that ended the backend, by a refreshed table; None without one."""
        return interruption_of(self._target, await self._gateway.recheck.refreshed())

    async def _no_response(self, failure: BackendError) -> LlamactlError:
        return await self._interruption() or no_response(self._target, failure)

    def _response_start(self, response: UpstreamResponse) -> Message:
        """The start of the response to the client. Raises NoWebUI or ForeignRedirect."""
        target, exchange = self._target, self._exchange
        exchange.first_byte_at = perf_counter()
        if self._is_web_ui and response.status in (401, 404):
            raise errors.NoWebUI(target.name, self._route.rest)
        if target.response_headers:
            keep(self._scope, target.response_headers)
        if response.status != 200:
            response.headers = with_own_location(
                response.headers,
                self._route,
                target.origin,
                target.name,
                self._path,
                prefix_of(self._scope),
            )
        exchange.status, exchange.response = response.status, response
        return response_start(response, target.response_headers, exchange, self._scope)


def path_and_query(path: str, query: bytes) -> str:
    """The target of the request to the backend, without llamactl's own key."""
    kept = without_key(query)
    return f"{path}?{kept.decode('latin-1')}" if kept else path
