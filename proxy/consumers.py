"""The HTTP consumer: authentication, routing, and refusals of one request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

import orjson
from channels.consumer import AsyncConsumer
from django.db import DatabaseError

from instances.errors import BackendStartFailed, BackendStartTimeout
from instances.names import validate_name
from llamactl.core.api_paths import is_operation
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.backend_ui import ui_location
from llamactl.core.error_response import OWN_HEADERS, is_anthropic, send_error
from llamactl.core.errors import (
    InvalidKey,
    InvalidRequest,
    LlamactlError,
    MethodNotAllowed,
    UnexpectedFailure,
    UriTooLong,
)
from llamactl.core.links import base_url_of
from llamactl.core.request_id import current_request
from llamactl.core.turns import Turns
from llamactl.core.unknown_paths import ApiNotServed, refusal_of
from proxy import errors
from proxy.auth import admit, authorise_by, target_named
from proxy.backend_answer import BackendAnswered
from proxy.body.body import ClientDisconnected, read_beginning, read_routed
from proxy.body.joined import STEP_BYTES, joined
from proxy.body.json_model import JsonModel, json_model
from proxy.body.multipart import ModelField
from proxy.body.request_defaults import RequestDefaults, with_defaults
from proxy.body.stream_usage import PATHS, with_usage
from proxy.body.upload import Upload
from proxy.disconnect import DisconnectWatch
from proxy.exchange import Exchange, Outcome
from proxy.forward import ForwardedRequest, path_and_query
from proxy.gateway import Gateway
from proxy.relay import end_broken_off, takes_error_event
from proxy.routes.anthropic_models import anthropic_model, anthropic_page
from proxy.routes.llama_cpp import is_call
from proxy.routes.models import find_model, list_models, model_of, openai_list
from proxy.routes.routes import Route, RouteKind
from proxy.table.table import UNRESTRICTED, KeyRule, RoutingTable, Target
from proxy.upstream import UpstreamResponse

logger = logging.getLogger(__name__)

MAX_TARGET_BYTES = 8000
"""cpp-httplib refuses a longer request line by closing the connection, like a dead backend."""

MAX_UNREAD_BODY_BYTES = 64 * 1024
"""A body beside a model that the path names is not read; a client may send one all the same."""

_KEYLESS_KINDS = (RouteKind.WEB_UI, RouteKind.WEB_UI_REDIRECT, RouteKind.HEALTH)
"""Routes that need no key, and take no body."""
_PAGE_KINDS = (RouteKind.WEB_UI, RouteKind.WEB_UI_REDIRECT, RouteKind.LLAMA_CPP)
"""Routes whose responses a browser may show as a page of the backend."""
_VARY = (b"vary", b"Sec-Fetch-Mode, Accept")


class ProxyConsumer(AsyncConsumer):  # type: ignore[misc] # channels has no types
    """One request to a backend.

    A Channels consumer with a dispatch of its own. The stock dispatch handles no message while a
    handler runs, so it can't see a disconnect, and it listens on the channel layer for every
    request.
    """

    _has_held = False
    """Whether bytes of the body may be held in the gateway's budget."""

    def __init__(self, gateway: Gateway, route: Route, scope: Scope) -> None:
        self.gateway = gateway
        self.route = route
        self.exchange = Exchange(route, scope["headers"])
        self._rule_table: RoutingTable | None = None
        """The table that ``exchange.rule`` was read from."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; any refusal becomes an error in the shape of its path."""
        exchange, outcome = self.exchange, Outcome.CANCELLED
        try:
            if not self.gateway.is_started:
                await self.gateway.start()
            # Not before: the tasks of the gateway would take the request for theirs.
            current_request.set(exchange)
            await self._handle(scope, receive, send)
            outcome = Outcome.ANSWERED
        except ClientDisconnected:
            outcome = Outcome.CLIENT_DISCONNECTED
        except LlamactlError as error:
            await self._refuse(scope, send, error, outcome_of(error))
        except DatabaseError as error:
            logger.warning("a start could not be requested: %s", error)
            await self._refuse(scope, send, errors.StartNotRequested(), Outcome.REFUSED)
        except Exception:
            logger.exception("llamactl failed on a request", extra=exchange.log_fields())
            # After a part of the backend's response the server cuts the connection instead.
            if exchange.response is None:
                await self._refuse(scope, send, UnexpectedFailure(), Outcome.FAILED)
            outcome = Outcome.FAILED
        finally:
            early, exchange.early = exchange.early, None
            if early is not None:
                await early.stop()
            if self._has_held:
                self.gateway.bodies.release(exchange)
            exchange.finish(outcome)
            self.gateway.notify(exchange)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, method = self.route, scope["method"]
        allowed = route.methods
        if method == "OPTIONS" and allowed is not None:
            allow = ", ".join((*allowed, "OPTIONS")).encode()
            await self._answer(send, 204, b"", (b"allow", allow))
            return
        gateway = self.gateway
        try:
            self._rule(gateway.live.table, scope)
        except InvalidKey:
            await admit(gateway, scope, self._rule, is_management=route.is_management)
        if route.kind is RouteKind.UNKNOWN:
            raise _unknown_path(scope)
        if allowed is not None and method not in allowed:
            raise _wrong_method(route, method, scope, allowed)
        if route.kind is RouteKind.MODELS:
            await self._answer(send, 200, orjson.dumps(await self._models(scope)))
            return
        if len(scope["query_string"]) + len(route.rest) > MAX_TARGET_BYTES:
            raise UriTooLong(MAX_TARGET_BYTES)
        if route.kind in _PAGE_KINDS and method in ("GET", "HEAD"):
            raw_path = (scope.get("raw_path") or b"").decode("latin-1")
            path = path_and_query(raw_path, scope["query_string"])
            page = ui_location(scope, path)
            if page is not None:
                await self._answer(send, 307, b"", (b"location", page.encode("latin-1")), _VARY)
                return
        if route.kind is RouteKind.WEB_UI_REDIRECT:
            # Relative, so that it is also right behind a proxy that serves us below a prefix.
            location = path_and_query(f"{validate_name(route.instance)}/", scope["query_string"])
            await self._answer(send, 307, b"", (b"location", location.encode("latin-1")))
        elif route.kind is RouteKind.INFERENCE:
            await self._forward_by_model(scope, receive, send)
        else:
            await self._answer_by_path(scope, receive, send)

    def _rule(self, table: RoutingTable, scope: Scope) -> KeyRule:
        """The rule of the request's key by this table; kept, for a second look at the table."""
        rule = self.exchange.rule
        if rule is None or table is not self._rule_table:
            kind = self.route.kind
            if kind in _KEYLESS_KINDS:
                rule = UNRESTRICTED
            else:
                rule = authorise_by(
                    table, self.gateway, scope, is_management=self.route.is_management
                )
            self.exchange.rule, self._rule_table = rule, table
        return rule

    async def _models(self, scope: Scope) -> dict[str, object]:
        """The document of the list, or of the model that the path names."""
        gateway, name = self.gateway, self.route.rest
        for_anthropic = is_anthropic(scope["headers"])
        if not name:
            table = gateway.live.table
            models = await list_models(
                table, self._rule(table, scope), gateway.upstream, gateway.models.context_length
            )
            if for_anthropic:
                return anthropic_page(models, scope["query_string"])
            return openai_list(models)
        target = await gateway.recheck.before_refusal(
            lambda table: find_model(table, self._rule(table, scope), name)
        )
        model = await model_of(target, gateway.upstream, name, gateway.models.context_length)
        return anthropic_model(model) if for_anthropic else model.openai

    async def _forward_by_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self.gateway
        body, field = await read_routed(
            receive, scope["headers"], gateway.max_body_bytes, gateway.turns, self._hold
        )
        upload = body if isinstance(body, Upload) else None
        async with gateway.disconnects.watch(receive, upload) as watch:
            found: ModelField | JsonModel
            if field is not None:
                found = field
            else:
                assert isinstance(body, bytes)  # noqa: S101 - uploads are forms, with a field
                found = await json_model(body, gateway.turns)
            target, served_model = await gateway.recheck.before_refusal(
                self._find_by_model, scope, found.model
            )
            if served_model is not None:
                body = await _with_served_model(body, found, served_model, gateway.turns)
            defaults = target.request_defaults
            if defaults is not None and not is_call(self.route.rest):
                defaults = None
            if defaults is not None and isinstance(body, bytes) and field is None:
                body = await with_defaults(body, defaults, gateway.turns)
            if target.asks_for_usage and isinstance(body, bytes) and self.route.rest in PATHS:
                asking = await with_usage(body, gateway.turns)
                if asking is not None:
                    body, self.exchange.hides_usage = asking, True
            is_changed = served_model is not None or defaults is not None
            if is_changed and (isinstance(body, Upload) or len(body) > STEP_BYTES):
                # The table may have changed in the turns that this took.
                target, _ = await gateway.recheck.before_refusal(
                    self._find_by_model, scope, found.model
                )
            await self._forward(scope, send, target, body, watch)

    async def _answer_by_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request whose path names the instance."""
        gateway, kind = self.gateway, self.route.kind
        # A management key may send a backend a body of any size; an inference key may not fill
        # the memory that the backend reads a body into.
        max_body_bytes: int | None = gateway.max_body_bytes
        if kind in _KEYLESS_KINDS:
            max_body_bytes = 0
        elif kind is RouteKind.INSTANCE:
            max_body_bytes = None
        elif kind is RouteKind.ROUTER_MODELS:
            max_body_bytes = MAX_UNREAD_BODY_BYTES
        body = await read_beginning(
            receive,
            scope["headers"],
            max_body_bytes,
            whole_limit=gateway.max_body_bytes,
            turns=gateway.turns,
            may_stream=self._defaults_by_name() is None,
            hold=self._hold,
        )
        if self.route.model:
            body = orjson.dumps({"model": self.route.model})
        upload = body if isinstance(body, Upload) else None
        async with gateway.disconnects.watch(receive, upload) as watch:
            target = await gateway.recheck.before_refusal(self._find_by_name, scope)
            defaults = self._defaults_by_name()
            if defaults is not None and isinstance(body, bytes):
                body = await with_defaults(body, defaults, gateway.turns)
                target = await gateway.recheck.before_refusal(self._find_by_name, scope)
            await self._forward(scope, send, target, body, watch)

    def _hold(self, size: int) -> None:
        """Hold this many bytes of the request's body. Raises TooManyBodies."""
        rule = self.exchange.rule
        self._has_held = True
        self.gateway.bodies.hold(self.exchange, rule.id if rule is not None else None, size)

    def _defaults_by_name(self) -> RequestDefaults | None:
        """The request defaults of the named instance; the instance proxy changes no body."""
        if self.route.kind is not RouteKind.LLAMA_CPP or not is_call(self.route.rest):
            return None
        target = self.gateway.live.table.targets.get(self.route.instance)
        return None if target is None else target.request_defaults

    def _find_by_name(self, table: RoutingTable, scope: Scope) -> Target:
        rule = self._rule(table, scope)
        target = target_named(table, self.route.instance)
        if not rule.allows(target):
            raise errors.InstanceNotPermitted
        if self.route.kind is not RouteKind.INSTANCE and not target.is_llama_server:
            raise errors.NotLlamaCpp(target.name)
        return target

    def _find_by_model(
        self, table: RoutingTable, scope: Scope, model: str
    ) -> tuple[Target, str | None]:
        rule = self._rule(table, scope)
        found = table.route(model)
        if found is None:
            raise errors.ModelNotFound(model)
        if not rule.allows(found[0]):
            raise errors.InstanceNotPermitted
        return found

    def _forward(
        self,
        scope: Scope,
        send: Send,
        target: Target,
        body: bytes | Upload,
        watch: DisconnectWatch,
    ) -> Awaitable[None]:
        request = ForwardedRequest(
            self.gateway, self.exchange, self.route, target, scope, body, watch
        )
        self.gateway.registry.begin(request)
        return request.run(send)

    async def _refuse(
        self, scope: Scope, send: Send, error: LlamactlError, outcome: Outcome
    ) -> None:
        exchange = self.exchange
        if exchange.early is not None:
            await exchange.early.stop()
        if exchange.status:
            await self._end_begun(send, error)
            exchange.finish(outcome)
            return
        if isinstance(error, InvalidRequest) and _may_be_no_path(self.route):
            # A request of an API without models, such as a thread, has no model to ask for.
            error = ApiNotServed(scope["path"])
        exchange.status = error.status
        await send_error(scope, send, error, *exchange.id_headers())
        exchange.finish(outcome)

    async def _end_begun(self, send: Send, error: LlamactlError) -> None:
        """End a response that has begun with an error event; any other is cut by the server."""
        early, response = self.exchange.early, self.exchange.response
        if early is not None and early.is_begun:
            await early.end_with(error)
        elif isinstance(response, UpstreamResponse) and takes_error_event(response):
            await end_broken_off(send, error, path=self.route.rest)

    async def _answer(
        self, send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]
    ) -> None:
        """Answer with a document of the proxy's own."""
        sent_headers = [*OWN_HEADERS, *headers, *self.exchange.id_headers()]
        if body:
            sent_headers.append((b"content-type", b"application/json"))
            sent_headers.append((b"content-length", b"%d" % len(body)))
        self.exchange.status = status
        self.exchange.bytes_to_client = len(body)
        await send({"type": "http.response.start", "status": status, "headers": sent_headers})
        await send({"type": "http.response.body", "body": body})


def _unknown_path(scope: Scope) -> LlamactlError:
    path = scope["path"]
    return refusal_of(path, base_url_of(scope)) or errors.PathNotExposed(path)


def _may_be_no_path(route: Route) -> bool:
    """Whether the path is below ``/v1``, and a backend's own if it is anything."""
    is_by_model = route.kind is RouteKind.INFERENCE and route.endpoint is None
    return is_by_model and route.rest.startswith("/v1/") and not is_operation(route.rest)


def _wrong_method(
    route: Route, method: str, scope: Scope, allowed: tuple[str, ...]
) -> LlamactlError:
    """405, or 404 for a path that backends alone may know: they take POST, if anything."""
    if _may_be_no_path(route):
        return ApiNotServed(scope["path"])
    return MethodNotAllowed(method, scope["path"], allowed)


def outcome_of(error: LlamactlError) -> Outcome:
    """Whether the error refuses the request, or tells of a backend that failed."""
    if isinstance(error, errors.RequestCancelled):
        return Outcome.CANCELLED
    if isinstance(error, BackendStartTimeout):
        return Outcome.REFUSED
    if isinstance(error, BackendAnswered) and error.status < 500:
        return Outcome.ANSWERED
    if isinstance(error, BackendStartFailed | errors.BackendFailed):
        return Outcome.BACKEND_FAILED
    return Outcome.REFUSED


async def _with_served_model(
    body: bytes | Upload, found: ModelField | JsonModel, model: str, turns: Turns
) -> bytes | Upload:
    """The body with the name that the backend has for its model."""
    if not isinstance(body, Upload):
        return await joined(found.parts_with(body, model), turns)
    body.replace_beginning(await joined(found.parts_with(body.beginning, model), turns))
    return body
