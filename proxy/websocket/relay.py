"""Relay of a WebSocket's messages, and of its end from one side to the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import cast

import aiohttp

from llamactl.core.asgi_types import Message, Receive, Send
from llamactl.core.websocket_limits import DECODED_BYTES, MAX_MESSAGE_BYTES
from proxy import cancel
from proxy.exchange import Exchange
from proxy.upstream import Socket

logger = logging.getLogger(__name__)

BACKEND_CLOSE_SECONDS = 1.0
"""How long a backend may take to answer a close frame, before its connection is dropped."""

LINGER_SECONDS = 10.0
"""How long a backend may then take to read the messages before the close frame."""

CLIENT_CLOSE_SECONDS = 30.0
"""How long a client may take to read the messages before the close frame; only a task waits."""

CLOSE_CODE_SECONDS = 0.5
"""How long the close code of a disconnected client may take to arrive."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The close code and reason of a WebSocket, as the other side is to be told."""

    code: int
    reason: str = ""
    is_by_client: bool = False


CLIENT_DISCONNECTED = Ending(1001, "the client went away", is_by_client=True)
STOPPING = Ending(1001, "llamactl is stopping")
# 1014 (bad gateway) would say it better, but clients older than that code take it for a violation
# of the protocol.
BROKEN_OFF = Ending(1011, "the backend broke off")
TOO_LARGE = Ending(1009, f"a message of the backend is larger than {MAX_MESSAGE_BYTES} bytes")


async def relay(
    receive: Receive,
    send: Send,
    backend: Socket,
    exchange: Exchange,
    disconnect_event: asyncio.Event,
    *,
    takes_utf8: bool = False,
) -> Ending:
    """Relay messages until one side ends; the other side is not told yet.

    ``takes_utf8``: whether the server takes a large text as ``utf8``.
    """
    from_client = asyncio.create_task(_to_backend(receive, backend, exchange))
    from_backend = asyncio.create_task(_to_client(backend, send, exchange, takes_utf8=takes_utf8))
    disconnect = asyncio.create_task(disconnect_event.wait())
    tasks = (from_client, from_backend, disconnect)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not from_client.done() and (disconnect.done() or from_backend.result() is None):
            await asyncio.wait((from_client,), timeout=CLOSE_CODE_SECONDS)
    finally:
        await cancel.cancel_and_wait(tasks)
    if not from_client.cancelled():
        return from_client.result()
    if not disconnect.cancelled():
        return CLIENT_DISCONNECTED
    return from_backend.result() or CLIENT_DISCONNECTED


async def _to_backend(receive: Receive, backend: Socket, exchange: Exchange) -> Ending:
    """Relay the client's messages; returns how the client ended the WebSocket.

    While the backend does not read, nothing is received: the server reads at most one message
    ahead, and the client has to wait. The client's close frame waits too, behind its messages; its
    disconnect is known sooner, see ``disconnect_event``.
    """
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return client_ending(message)
        text, utf8 = message.get("text"), message.get("utf8")
        if text is not None:
            utf8 = text.encode("utf-8", "surrogatepass")
        # A backend that has ended may have left messages and a reason, which _to_client still
        # relays. Until it has, only the client's disconnect matters here.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            if utf8 is not None:
                await backend.send_frame(utf8, aiohttp.WSMsgType.TEXT)
                exchange.bytes_to_backend += len(utf8)
            else:
                await backend.send_bytes(message["bytes"])
                exchange.bytes_to_backend += len(message["bytes"])
        # Messages that have come together would be relayed in one turn of the event loop.
        await asyncio.sleep(0)


async def _to_client(
    backend: Socket, send: Send, exchange: Exchange, *, takes_utf8: bool
) -> Ending | None:
    """Relay the backend's messages; returns how the backend ended the WebSocket.

    ``None`` for a client that turns out to be disconnected. While the client does not read,
    ``send`` waits, and no more than one buffer is read from the backend.
    """
    while True:
        message = await backend.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            try:
                sent = _text_message(message.data, takes_utf8=takes_utf8)
            except UnicodeDecodeError:
                return BROKEN_OFF
        elif message.type is aiohttp.WSMsgType.BINARY:
            sent = {"type": "websocket.send", "bytes": message.data}
        else:
            return backend_ending(cast(aiohttp.WSMessage, message))
        size = len(message.data)
        try:
            await send(sent)
        except (OSError, RuntimeError):
            # uvicorn: RuntimeError where it has closed on its own (for a message too large).
            return None
        exchange.bytes_to_client += size
        await asyncio.sleep(0)  # see _to_backend


def _text_message(utf8: bytes, *, takes_utf8: bool) -> Message:
    """A text for the client. Raises UnicodeDecodeError; a large text is checked by the client."""
    if takes_utf8 and len(utf8) > DECODED_BYTES:
        return {"type": "websocket.send", "utf8": utf8}
    return {"type": "websocket.send", "text": utf8.decode()}


def client_ending(message: Message) -> Ending:
    """The ending in a ``websocket.disconnect``."""
    code, reason = message.get("code"), message.get("reason")
    if code == 1005 and reason is not None:
        # A close frame without a code. uvicorn says 1005 for a broken connection as well, but then
        # gives no reason.
        return Ending(1000, is_by_client=True)
    if code is None or not _is_sendable(code):
        return CLIENT_DISCONNECTED
    return Ending(code, reason or "", is_by_client=True)


def backend_ending(message: aiohttp.WSMessage) -> Ending:
    """The ending in the last message of a backend."""
    if message.type is aiohttp.WSMsgType.CLOSE:
        code, reason = message.data or 1000, message.extra or ""
        return Ending(code, reason) if _is_sendable(code) else BROKEN_OFF
    if isinstance(message.data, aiohttp.WebSocketError) and message.data.code == 1009:
        return TOO_LARGE
    return BROKEN_OFF


def _is_sendable(code: int) -> bool:
    """Whether a close frame may have this code.

    RFC 6455, section 7.4: the other codes tell of connections that ended without a close frame.
    """
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


async def close_backend(backend: Socket, ending: Ending) -> None:
    try:
        async with asyncio.timeout(BACKEND_CLOSE_SECONDS):
            await backend.close(code=ending.code, message=ending.reason.encode())
    except TimeoutError:
        logger.debug("the backend did not answer the close frame")
    finally:
        backend.drop_after(BACKEND_CLOSE_SECONDS if ending is STOPPING else LINGER_SECONDS)


async def close_client(send: Send, ending: Ending) -> None:
    """Send the client a close frame; after the time limit the server drops the connection."""
    with contextlib.suppress(OSError, RuntimeError):
        async with asyncio.timeout(CLIENT_CLOSE_SECONDS):
            await send({"type": "websocket.close", "code": ending.code, "reason": ending.reason})
