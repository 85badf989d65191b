"""How does a request get its answer, whatever becomes of the backend meanwhile?"""

from __future__ import annotations

import logging
from time import perf_counter

from llamactl.core.asgi_types import Scope, Send
from llamactl.core.errors import LlamactlError
from llamactl.middleware.response_headers import keep
from proxy import errors
from proxy.auth import without_key
from proxy.body.upload import Upload
from proxy.gateway import Gateway
from proxy.headers import Pairs, to_backend
from proxy.relay import first_piece, relay, response_start
from proxy.routes import web_ui
from proxy.routes.routes import Route, RouteKind, counts_as_use, may_start
from proxy.table.table import KeyRule, Target
from proxy.upstream import BackendError, Refused, Stalled, Unanswered, UpstreamResponse

logger = logging.getLogger(__name__)

REPLACED_WITHIN_SECONDS = 5.0
"""How long a supervisor may take to notice that a backend is gone."""

# RFC 9110, section 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Forwarding:
    """One request that may go to its target, and the answer on its way back."""

    __slots__ = (
        "_began_at",
        "_body",
        "_gateway",
        "_headers",
        "_is_repeatable",
        "_is_web_ui",
        "_loaded_seconds",
        "_method",
        "_path",
        "_route",
        "_rule",
        "_scope",
        "has_begun",
        "target",
    )

    def __init__(
        self,
        gateway: Gateway,
        route: Route,
        rule: KeyRule,
        target: Target,
        scope: Scope,
        body: bytes | Upload,
    ) -> None:
        self.target = target
        self.has_begun = False
        """Whether the client may have got a part of the answer."""
        self._gateway = gateway
        self._route = route
        self._rule = rule
        self._scope = scope
        self._is_web_ui = route.side is RouteKind.WEB_UI
        self._headers = self._headers_for(target)
        method = scope["method"]
        if route.endpoint is not None:
            method = route.endpoint[method].sent_as
            body = body if method != "GET" else b""
        self._method, self._body = method, body
        self._path = path_and_query(route.rest, scope["query_string"])
        self._is_repeatable = isinstance(body, bytes) and (
            route.side is not RouteKind.INSTANCE or method in _IDEMPOTENT
        )
        self._began_at = perf_counter()
        self._loaded_seconds = 0.0

    async def run(self, send: Send) -> None:
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
        if self._is_web_ui:
            send = web_ui.as_accepted(self._scope["headers"], send)
        was_sent = was_replaced = False
        while True:
            if not self.target.is_ready:
                await self._make_ready()
            failure = await self._try(
                send, fresh=was_sent or was_replaced or not self._is_repeatable
            )
            if failure is None:
                return
            is_unanswered = isinstance(failure, Unanswered)
            may_be_sent = isinstance(failure, Refused) or (is_unanswered and self._is_repeatable)
            if was_replaced or not may_be_sent:
                raise _no_answer(self.target, failure) from failure
            if was_sent or not is_unanswered:
                before, was_replaced = self.target, True
                self._aim_at(
                    await self._gateway.waiting.replaced(
                        before, within_seconds=REPLACED_WITHIN_SECONDS
                    )
                )
                if is_unanswered and self.target == before:
                    raise _no_answer(before, failure) from failure
            was_sent |= is_unanswered

    async def _make_ready(self) -> None:
        waiting = self._gateway.waiting
        if not may_start(self._route, self._scope["method"]):
            self._aim_at(await waiting.running(self.target))
            return
        waits_since = perf_counter()
        self._aim_at(await waiting.ready(self.target, self._rule.id))
        # It may have come when the load was half done, or have waited for room before.
        waited_seconds = perf_counter() - waits_since
        self._loaded_seconds += min(waited_seconds, self.target.load_seconds or 0.0)

    def _aim_at(self, target: Target) -> None:
        if target.authorization != self.target.authorization:
            self._headers = self._headers_for(target)
        self.target = target

    def _headers_for(self, target: Target) -> Pairs:
        if self._is_web_ui:
            return web_ui.request_headers(self._scope["headers"])
        return to_backend(self._scope["headers"], target.authorization)

    async def _try(self, send: Send, *, fresh: bool) -> BackendError | None:
        """Ask once, and relay the answer; returns why there is none."""
        gateway, target = self._gateway, self.target
        # No await between the look at the table and this count; see InFlight.carrying.
        is_use = counts_as_use(self._route, self._scope["method"])
        with gateway.in_flight.carrying(target.name, is_use=is_use) as carried:
            sent_at = perf_counter()
            first = None
            try:
                answer = await gateway.upstream.open(
                    target,
                    method=self._method,
                    path_and_query=self._path,
                    headers=self._headers,
                    body=self._body,
                    fresh=fresh,
                )
                if self._is_repeatable and self._method == "POST":
                    first = await first_piece(answer, gateway.upstream.limits)
            except BackendError as error:
                logger.info("no answer: %s", error, extra={"instance": target.name})
                # Without its frames: this one would hold it and be held, with the whole body.
                return error.with_traceback(None)
            carried.content = answer
            async with answer:
                await self._relay(answer, first, send, sent_at)
        return None

    async def _relay(
        self, answer: UpstreamResponse, first: bytes | None, send: Send, sent_at: float
    ) -> None:
        target = self.target
        if self._is_web_ui and answer.status in (401, 404):
            raise errors.NoWebUI(target.name, self._route.rest)
        if target.response_headers:
            keep(self._scope, target.response_headers)
        start = response_start(
            answer,
            target.response_headers,
            queued_seconds=sent_at - self._began_at - self._loaded_seconds,
            loaded_seconds=self._loaded_seconds,
            answered_seconds=perf_counter() - sent_at,
        )
        self.has_begun = True
        await send(start)
        await relay(
            answer,
            send,
            first=first,
            instance=target.name,
            path=self._route.rest,
            limits=self._gateway.upstream.limits,
        )


def _no_answer(target: Target, error: BackendError) -> LlamactlError:
    logs = f"see GET /api/v1/instances/{target.name}/logs"
    if isinstance(error, Stalled):
        return errors.BackendStalled(f"the backend of {target.name} is silent ({error}); {logs}")
    if isinstance(error, Refused | Unanswered):
        return errors.BackendUnreachable(f"the backend of {target.name} does not answer; {logs}")
    return errors.BackendUnreachable(
        f"what the backend of {target.name} answered is no HTTP/1.1; {logs}"
    )


def path_and_query(path: str, query: bytes) -> str:
    """The target of the request to the backend, without a key of ours."""
    kept = without_key(query)
    return f"{path}?{kept.decode('latin-1')}" if kept else path
