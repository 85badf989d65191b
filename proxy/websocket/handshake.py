"""WebSockets to the backends of instances: handshake, refusal, and the order of the ends."""

from __future__ import annotations

import logging
from time import perf_counter

from django.db import DatabaseError

from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.disconnect_event import disconnect_event
from llamactl.core.error_response import send_error
from llamactl.core.errors import DatabaseUnavailable, LlamactlError, PathNotFound, UriTooLong
from llamactl.core.request_id import current_request
from llamactl.core.websocket_limits import UTF8_EXTENSION
from proxy import errors
from proxy.auth import authorise, target_named, without_key
from proxy.body.body import ClientDisconnected
from proxy.consumers import MAX_TARGET_BYTES
from proxy.errors import BackendFailed
from proxy.exchange import Exchange, Outcome
from proxy.gateway import Gateway
from proxy.headers import to_backend
from proxy.routes.routes import Route, RouteKind
from proxy.table.table import Target
from proxy.upstream import BackendError, HandshakeRefused, Socket
from proxy.websocket.relay import (
    BROKEN_OFF,
    CLIENT_DISCONNECTED,
    STOPPING,
    TOO_LARGE,
    Ending,
    close_backend,
    close_client,
    relay,
)

logger = logging.getLogger(__name__)


class NoWebSocketHere(PathNotFound):
    """A path that takes no WebSocket."""

    def __init__(self) -> None:
        super().__init__(
            "No WebSocket is answered at this path; those of an instance's backend are under"
            " /api/v1/instances/{name}/proxy/"
        )


class BackendRefused(LlamactlError):
    """A handshake that the backend answered with a status of its own, which is passed on."""

    code = "backend_refused"

    def __init__(self, target: Target, status: int) -> None:
        super().__init__(
            f"the backend of {target.name} answered {status} instead of opening a WebSocket;"
            " see whether it has one at this path"
        )
        # A status that is no refusal (a page, a redirect) would tell the client that all is well.
        is_refusal = 400 <= status <= 599
        self.status = status if is_refusal else 502  # type: ignore[misc] # fixed for the others


async def serve(
    gateway: Gateway, route: Route | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer one handshake and relay the messages; ``route`` is ``None`` for an unknown path."""
    if (await receive())["type"] != "websocket.connect":
        return
    exchange = Exchange(route, scope["headers"])
    try:
        if route is None or route.kind is not RouteKind.INSTANCE:
            raise NoWebSocketHere
        if not gateway.is_started:
            await gateway.start()
        current_request.set(exchange)
        target = await _target(gateway, exchange, route, scope)
        ending = await _connect(gateway, exchange, route, target, scope, receive, send)
        exchange.finish(_OUTCOMES.get(ending, Outcome.ANSWERED))
    except ClientDisconnected:
        exchange.finish(Outcome.CLIENT_DISCONNECTED)
    except LlamactlError as error:
        await _refuse(exchange, scope, send, error)
    except DatabaseError as error:
        logger.warning("the routing table can't be read: %s", error)
        await _refuse(exchange, scope, send, DatabaseUnavailable())
    except Exception:
        exchange.finish(Outcome.FAILED)
        raise
    finally:
        exchange.finish(Outcome.CANCELLED)
        gateway.notify(exchange)


_OUTCOMES = {
    CLIENT_DISCONNECTED: Outcome.CLIENT_DISCONNECTED,
    BROKEN_OFF: Outcome.BACKEND_FAILED,
    TOO_LARGE: Outcome.BACKEND_FAILED,
}
"""Of the endings that no side chose; a WebSocket with a close frame is answered."""


async def _refuse(exchange: Exchange, scope: Scope, send: Send, error: LlamactlError) -> None:
    exchange.status = error.status
    await send_error(scope, send, error, *exchange.id_headers())
    is_backend = isinstance(error, BackendFailed | BackendRefused)
    exchange.finish(Outcome.BACKEND_FAILED if is_backend else Outcome.REFUSED)


async def _target(gateway: Gateway, exchange: Exchange, route: Route, scope: Scope) -> Target:
    """The running instance of a permitted handshake. Raises LlamactlError.

    Browsers let any page open a WebSocket to any site, with that site's cookies. But cookies give
    no access here, and a page that knows a key needs no trick. Where keys are switched off,
    OriginGuard has checked the page's origin before.
    """
    exchange.rule = await authorise(gateway, scope, is_management=True)
    if len(scope["query_string"]) + len(route.rest) > MAX_TARGET_BYTES:
        raise UriTooLong(MAX_TARGET_BYTES)
    target = await gateway.recheck.before_refusal(lambda table: target_named(table, route.instance))
    exchange.instance = target.name
    exchange.queued_at = perf_counter()
    return await gateway.activator.require_running(target)


async def _connect(
    gateway: Gateway,
    exchange: Exchange,
    route: Route,
    target: Target,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> Ending:
    """Open the backend's end, then the client's, and relay until one side ends.

    The backend's handshake comes first, so that the client is told the backend's answer: its
    subprotocol or its refusal. At the end the backend is told first: it has work to stop.

    Raises LlamactlError or ClientDisconnected only as long as nothing was accepted.
    """
    # No await between reading the table and this count; see InFlight.begin.
    gateway.in_flight.begin(exchange)
    try:
        exchange.sent_at = perf_counter()
        backend = await _open_backend(gateway, exchange, route, target, scope, receive)
        exchange.first_byte_at, exchange.status = perf_counter(), 101
        ending = await _accept_and_relay(exchange, target, backend, scope, receive, send)
    finally:
        gateway.in_flight.end(exchange)
    if not ending.is_by_client:
        await close_client(send, ending)
    return ending


async def _accept_and_relay(
    exchange: Exchange,
    target: Target,
    backend: Socket,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> Ending:
    """Accept the client's handshake, relay until one side ends, and close the backend's end."""
    accept = {
        "type": "websocket.accept",
        "subprotocol": backend.protocol,
        "headers": [*target.response_headers, *exchange.id_headers()],
    }
    takes_utf8 = UTF8_EXTENSION in scope.get("extensions", ())
    ending = STOPPING
    try:
        await send(accept)
        ending = await relay(
            receive, send, backend, exchange, disconnect_event(scope), takes_utf8=takes_utf8
        )
    except OSError:
        ending = CLIENT_DISCONNECTED
    finally:
        await close_backend(backend, ending)
    return ending


async def _open_backend(
    gateway: Gateway,
    exchange: Exchange,
    route: Route,
    target: Target,
    scope: Scope,
    receive: Receive,
) -> Socket:
    """The backend's end. Raises LlamactlError, or ClientDisconnected during the handshake."""
    query = without_key(scope["query_string"]).decode("latin-1")
    backend = None
    try:
        async with gateway.disconnects.watch(receive):
            backend = await gateway.upstream.open_websocket(
                target,
                path_and_query=f"{route.rest}?{query}" if query else route.rest,
                headers=to_backend(_own_headers(scope), target.authorization),
                subprotocols=scope.get("subprotocols") or (),
            )
    except ClientDisconnected:
        if backend is not None:
            await close_backend(backend, CLIENT_DISCONNECTED)
        raise
    except HandshakeRefused as error:
        raise BackendRefused(target, error.status) from error
    except BackendError as error:
        logger.info("no WebSocket: %s", error, extra=exchange.log_fields())
        await gateway.activator.recheck_running(target)
        raise errors.BackendUnreachable(
            f"the backend of {target.name} does not answer a WebSocket's handshake; see GET"
            f" /api/v1/instances/{target.name}/logs"
        ) from error
    return backend


def _own_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The client's headers, without the handshake's.

    ``Origin`` is dropped too. A backend compares it with the name that it is reached by, which for
    the page is llamactl's name and for the backend another. Which pages may connect is decided by
    llamactl; to the backend, llamactl is a program, and programs send no Origin.
    """
    return [
        (name, value)
        for name, value in scope["headers"]
        if name != b"origin" and not name.startswith(b"sec-websocket-")
    ]
