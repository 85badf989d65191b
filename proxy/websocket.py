"""Carrying a WebSocket between a client and an instance's backend, until either of them ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import aiohttp
from django.db import DatabaseError

from instances.errors import InstanceNotFound
from llamactl.core.asgi_types import Message, Receive, Scope, Send
from llamactl.core.disconnect_event import disconnect_event
from llamactl.core.error_response import send_error
from llamactl.core.errors import DatabaseUnavailable, LlamactlError
from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from proxy import cancel, errors
from proxy.auth import authorise, target_named, without_key
from proxy.body.body import ClientDisconnected
from proxy.consumers import MAX_TARGET_BYTES
from proxy.gateway import Gateway
from proxy.headers import to_backend
from proxy.routes.routes import Route, RouteKind
from proxy.table.table import Target
from proxy.upstream import BackendError, HandshakeRefused, Socket

logger = logging.getLogger(__name__)

BACKEND_CLOSE_SECONDS = 1.0
"""How long a backend may take to answer a close frame, before its connection is dropped."""

LINGER_SECONDS = 10.0
"""How long a backend may then take to read what it was sent before."""

CLIENT_CLOSE_SECONDS = 30.0
"""How long a client may take to read what comes before the close frame; only a task waits."""

LAST_WORD_SECONDS = 0.5
"""How long a client's own close code may take that we know to be gone."""


class NoWebSocketHere(LlamactlError):
    code = "not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__(
            "No WebSocket is answered at this path; those of an instance's backend are under"
            " /api/v1/instances/{name}/proxy/"
        )


class BackendRefused(LlamactlError):
    """The backend answered the handshake with a status of its own, which is passed on."""

    code = "backend_refused"

    def __init__(self, target: Target, status: int) -> None:
        super().__init__(
            f"the backend of {target.name} answered {status} instead of opening a WebSocket;"
            " see whether it has one at this path"
        )
        # One that is no refusal (a page, a redirect) would say to the client that all is well.
        is_refusal = 400 <= status <= 599
        self.status = status if is_refusal else 502  # type: ignore[misc] # fixed for the others


@dataclass(frozen=True, slots=True)
class Ending:
    """How a WebSocket ended, as the other side is to be told."""

    code: int
    reason: str = ""
    is_by_client: bool = False


CLIENT_GONE = Ending(1001, "the client went away", is_by_client=True)
STOPPING = Ending(1001, "llamactl is stopping")
# Not 1014 (bad gateway), which says it better: clients that are older than it take that for a
# violation of the protocol.
BROKEN_OFF = Ending(1011, "the backend broke off")
TOO_LARGE = Ending(1009, f"a message of the backend is larger than {MAX_MESSAGE_BYTES} bytes")


async def carry(
    gateway: Gateway, route: Route | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer one handshake and carry what follows; ``route`` is ``None`` for an unknown path."""
    if (await receive())["type"] != "websocket.connect":
        return
    try:
        if route is None or route.side is not RouteKind.INSTANCE:
            raise NoWebSocketHere
        if not gateway.is_started:
            await gateway.start()
        await _carry(gateway, route, scope, receive, send)
    except LlamactlError as error:
        await send_error(scope, send, error)
    except DatabaseError as error:
        logger.warning("the routing table can't be read: %s", error)
        await send_error(scope, send, DatabaseUnavailable())


async def _carry(
    gateway: Gateway, route: Route, scope: Scope, receive: Receive, send: Send
) -> None:
    """Raises LlamactlError as long as nothing was accepted, and not later.

    1. The key. Browsers let any page open a WebSocket to any site, with that site's cookies; but
       no cookie opens this one, and a page that knows a key needs no trick. Where keys are
       switched off, OriginGuard has looked at the page's origin before.
    2. The backend's handshake, so that the client is told what the backend said: its subprotocol
       or its refusal.
    3. Messages in both directions, and the end of one side to the other, the backend first: it is
       the one that has work to stop.
    """
    await authorise(gateway, scope, is_management=True)
    if len(scope["query_string"]) + len(route.rest) > MAX_TARGET_BYTES:
        raise errors.UriTooLong(MAX_TARGET_BYTES)
    try:
        target = target_named(gateway.live.table, route.instance)
    except InstanceNotFound:
        await gateway.look_again()
        target = target_named(gateway.live.table, route.instance)
    target = await gateway.waiting.running(target)
    # No await between the look at the table and this count; see InFlight.carrying.
    with gateway.in_flight.carrying(target.name):
        backend = await _opened(gateway, target, route, scope, receive)
        if backend is None:
            return
        ending = STOPPING
        try:
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": backend.protocol,
                    "headers": list(target.response_headers),
                }
            )
            ending = await _relay(receive, send, backend, disconnect_event(scope))
        except OSError:
            ending = CLIENT_GONE
        finally:
            await _close_backend(backend, ending)
    if not ending.is_by_client:
        await _close_client(send, ending)


async def _opened(
    gateway: Gateway, target: Target, route: Route, scope: Scope, receive: Receive
) -> Socket | None:
    """The backend's end, or ``None`` where the client left before the backend had answered."""
    query = without_key(scope["query_string"]).decode("latin-1")
    backend = None
    try:
        async with gateway.hang_ups.watch(receive):
            backend = await gateway.upstream.open_websocket(
                target,
                path_and_query=f"{route.rest}?{query}" if query else route.rest,
                headers=to_backend(_own_headers(scope), target.authorization),
                subprotocols=scope.get("subprotocols") or (),
            )
    except ClientDisconnected:
        if backend is not None:
            await _close_backend(backend, CLIENT_GONE)
        return None
    except HandshakeRefused as error:
        raise BackendRefused(target, error.status) from error
    except BackendError as error:
        logger.info("no WebSocket: %s", error, extra={"instance": target.name})
        await gateway.waiting.still_running(target)
        raise errors.BackendUnreachable(
            f"the backend of {target.name} does not answer a WebSocket's handshake; see GET"
            f" /api/v1/instances/{target.name}/logs"
        ) from error
    return backend


def _own_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers that are the client's own, not its handshake's.

    ``Origin`` goes too: a backend that looks at it compares it with the name it is reached by,
    which is ours to the page and another one to the backend. Whom a page may reach is decided
    here; to the backend we are a program, and programs send none.
    """
    return [
        (name, value)
        for name, value in scope["headers"]
        if name != b"origin" and not name.startswith(b"sec-websocket-")
    ]


async def _relay(
    receive: Receive, send: Send, backend: Socket, disconnect_event: asyncio.Event
) -> Ending:
    """Carry messages until one side ends; the other is not told yet."""
    from_client = asyncio.create_task(_to_backend(receive, backend))
    from_backend = asyncio.create_task(_to_client(backend, send))
    leaving = asyncio.create_task(disconnect_event.wait())
    tasks = (from_client, from_backend, leaving)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not from_client.done() and (leaving.done() or from_backend.result() is None):
            await asyncio.wait((from_client,), timeout=LAST_WORD_SECONDS)
    finally:
        await cancel.end(tasks)
    if not from_client.cancelled():
        return from_client.result()
    if not leaving.cancelled():
        return CLIENT_GONE
    return from_backend.result() or CLIENT_GONE


async def _to_backend(receive: Receive, backend: Socket) -> Ending:
    """What the client sends, to the backend; returns how the client ended it.

    While the backend does not read, nothing is received: the server reads one message ahead at
    most, and the client has to wait. So does its closing, which comes after what it has sent; that
    it has left is known sooner, see ``disconnect_event``.
    """
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return client_ended(message)
        text = message.get("text")
        # A backend that has gone may have left messages and a reason, which _to_client is at;
        # until it is through, only the client's leaving matters here.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            if text is not None:
                await backend.send_str(text)
            else:
                await backend.send_bytes(message["bytes"])


async def _to_client(backend: Socket, send: Send) -> Ending | None:
    """What the backend sends, to the client; returns how the backend ended it.

    ``None`` where the client turns out to be gone. While it does not read, ``send`` waits and no
    more is read from the backend than a buffer.
    """
    while True:
        message = await backend.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            sent: Message = {"type": "websocket.send", "text": message.data}
        elif message.type is aiohttp.WSMsgType.BINARY:
            sent = {"type": "websocket.send", "bytes": message.data}
        else:
            return backend_ended(message)
        try:
            await send(sent)
        except (OSError, RuntimeError):
            # uvicorn: RuntimeError where it has closed on its own (for a message too large).
            return None


def client_ended(message: Message) -> Ending:
    """The ending that a ``websocket.disconnect`` tells of."""
    code, reason = message.get("code"), message.get("reason")
    if code == 1005 and reason is not None:
        # A close frame without a code. For a connection that broke uvicorn says 1005 as well, but
        # has no reason to give.
        return Ending(1000, is_by_client=True)
    if code is None or not _may_be_sent(code):
        return CLIENT_GONE
    return Ending(code, reason or "", is_by_client=True)


def backend_ended(message: aiohttp.WSMessage) -> Ending:
    """The ending that the last message from a backend tells of."""
    if message.type is aiohttp.WSMsgType.CLOSE:
        code, reason = message.data or 1000, message.extra or ""
        return Ending(code, reason) if _may_be_sent(code) else BROKEN_OFF
    if isinstance(message.data, aiohttp.WebSocketError) and message.data.code == 1009:
        return TOO_LARGE
    return BROKEN_OFF


def _may_be_sent(code: int) -> bool:
    """RFC 6455, section 7.4: the others say what happened where no close frame came."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


async def _close_backend(backend: Socket, ending: Ending) -> None:
    try:
        async with asyncio.timeout(BACKEND_CLOSE_SECONDS):
            await backend.close(code=ending.code, message=ending.reason.encode())
    except TimeoutError:
        logger.debug("the backend did not answer the close frame")
    finally:
        backend.drop_after(BACKEND_CLOSE_SECONDS if ending is STOPPING else LINGER_SECONDS)


async def _close_client(send: Send, ending: Ending) -> None:
    """Tell the client; where it does not even read, the server drops the connection after us."""
    with contextlib.suppress(OSError, RuntimeError):
        async with asyncio.timeout(CLIENT_CLOSE_SECONDS):
            await send({"type": "websocket.close", "code": ending.code, "reason": ending.reason})
