"""Relay of one response from the backend to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from llamactl.core.asgi_types import Message, Scope, Send
from llamactl.core.backend_ui import SANDBOX, came_by_ui_port
from llamactl.core.error_format import event_for, family_of
from llamactl.core.errors import LlamactlError
from llamactl.core.headers import header
from proxy.exchange import Exchange
from proxy.headers import Pairs, to_client
from proxy.observe.response_reader import ResponseReader
from proxy.observe.usage_event import UsageEventFilter
from proxy.upstream import BrokeOff, Stalled, Unanswered, UpstreamResponse, UpstreamTimeouts

_WITHOUT_BODY = (204, 304)
_UNBUFFERED = [(b"x-accel-buffering", b"no"), (b"cache-control", b"no-cache")]
_NEVER_SECONDS = 1e9


def response_start(
    response: UpstreamResponse,
    added_headers: Sequence[tuple[bytes, bytes]],
    exchange: Exchange,
    scope: Scope,
) -> Message:
    """Status and headers for the client, with the request's times so far as ``Server-Timing``."""
    headers = to_client(response.headers, added_headers)
    if response.status in _WITHOUT_BODY:
        # The length would be that of a body that never comes: uvicorn would wait for the body,
        # and a 204 must have no Content-Length (RFC 9110, section 8.6).
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    headers.append((b"server-timing", exchange.server_timing()))
    headers += exchange.id_headers()
    if is_event_stream(response):
        headers = for_events(headers, added_headers)
    if not came_by_ui_port(scope):
        # Whatever its Content-Type: of several, and of a list in one, browsers take the last.
        headers.append(SANDBOX)
    return {"type": "http.response.start", "status": response.status, "headers": headers}


def for_events(headers: Pairs, added_headers: Sequence[tuple[bytes, bytes]]) -> Pairs:
    """The headers of an event stream, with orders to proxies in front not to gather events.

    nginx is told by ``X-Accel-Buffering``, CDNs by ``Cache-Control``; a configured
    ``Cache-Control`` stays.
    """
    is_configured = any(name == b"cache-control" for name, _ in added_headers)
    unbuffered = _UNBUFFERED[:1] if is_configured else _UNBUFFERED
    replaced = [name for name, _ in unbuffered]
    return [*(pair for pair in headers if pair[0] not in replaced), *unbuffered]


class ReadTimeout:
    """Ends a read with Stalled that waits longer than its limit.

    One timer for the whole body, moved on only when it fires: a stream has a chunk every few
    milliseconds, and a timeout around each read would set a timer for each.
    """

    def __init__(self, response: UpstreamResponse, seconds: float) -> None:
        self._response = response
        self._loop = asyncio.get_running_loop()
        self.start(seconds)
        self._timer = self._loop.call_later(seconds, self._check)

    def start(self, seconds: float) -> None:
        """Give the backend this long for its next piece."""
        self._seconds = seconds
        self._since: float | None = self._loop.time()

    def pause(self) -> None:
        """Stop the clock while the client reads; the server ends a client that reads nothing."""
        self._since = None

    def cancel(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        left = self._seconds
        if self._since is not None:
            left = self._since + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._response.fail(Stalled(f"nothing came for {self._seconds:g} s"))


async def read_first_piece(response: UpstreamResponse, timeouts: UpstreamTimeouts) -> bytes:
    """The beginning of the backend's body; ``b""`` for an empty body.

    For a stream llama.cpp sends the headers at once, and nothing more before it has read the
    prompt. Before the first piece the request can still be sent again. Raises Unanswered or
    Stalled; the connection is closed then.
    """
    piece = None
    try:
        if timeouts.first_byte:
            async with asyncio.timeout(timeouts.first_byte):
                piece = await response.read()
        else:
            piece = await response.read()
        return piece
    except BrokeOff as error:
        raise Unanswered(str(error)) from error
    except TimeoutError as error:
        raise Stalled(f"nothing came within {timeouts.first_byte:g} s") from error
    finally:
        if piece is None:
            response.release()


def relay(
    response: UpstreamResponse,
    send: Send,
    first_piece: bytes | None,
    timeouts: UpstreamTimeouts,
    exchange: Exchange | None = None,
) -> Awaitable[None]:
    """Send the backend's body to the client after ``response_start``: each piece as it comes.

    Nothing is held back and nothing re-framed. ``send`` waits while the client reads slowly, and
    meanwhile at most one buffer is read from the backend. ``first_piece`` is the part of the body
    that was read before. ``exchange`` gets what its token counts are read from. Raises BrokeOff or
    Stalled, see ``end_broken_off``.
    """
    if first_piece is not None and response.is_at_end:
        # Most responses that are no stream.
        if exchange is not None:
            exchange.body = first_piece
            if exchange.hides_usage and is_event_stream(response):
                first_piece = UsageEventFilter().feed(first_piece, is_last=True)
        return send({"type": "http.response.body", "body": first_piece})
    return _relay_pieces(response, send, first_piece, timeouts, exchange)


async def _relay_pieces(
    response: UpstreamResponse,
    send: Send,
    piece: bytes | None,
    timeouts: UpstreamTimeouts,
    exchange: Exchange | None,
) -> None:
    reader: ResponseReader | None = None
    hidden: UsageEventFilter | None = None
    if exchange is not None and exchange.hides_usage and is_event_stream(response):
        hidden = UsageEventFilter()
    read_timeout = None
    if timeouts.first_byte and piece is None and not response.is_at_end:
        read_timeout = ReadTimeout(response, timeouts.first_byte)
    try:
        while True:
            if piece is None:
                piece = await response.read()
            if reader is not None:
                reader.feed(piece)
            elif exchange is not None:
                reader = exchange.body = ResponseReader(piece)
            is_last = response.is_at_end
            if read_timeout is not None:
                read_timeout.pause()
            if hidden is not None:
                piece = hidden.feed(piece, is_last=is_last)
            if piece or is_last:
                await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
            if is_last:
                return
            piece = None
            if read_timeout is not None:
                read_timeout.start(timeouts.idle or _NEVER_SECONDS)
            elif timeouts.idle:
                read_timeout = ReadTimeout(response, timeouts.idle)
    finally:
        if read_timeout is not None:
            read_timeout.cancel()


async def end_broken_off(send: Send, error: LlamactlError, *, path: str) -> None:
    """End an event stream that was cut with an error event.

    The event has the shape that clients of the backend's ``path`` expect. Any other body just stops
    without its end mark, which the client can tell from a whole body.
    """
    event = event_for(family_of(path), error)
    await send({"type": "http.response.body", "body": event, "more_body": False})


def takes_error_event(response: UpstreamResponse) -> bool:
    """Whether an event of llamactl may follow: in plain events of no fixed length."""
    is_plain = response.length is None and header(response.headers, b"content-encoding") is None
    return is_plain and is_event_stream(response)


def is_event_stream(response: UpstreamResponse) -> bool:
    """Whether the body is an event stream, by its Content-Type."""
    kind = header(response.headers, b"content-type")
    # Most responses are JSON, and are told apart by their first letters.
    if kind is None or kind.startswith(b"application/"):
        return False
    return kind.partition(b";")[0].strip().lower() == b"text/event-stream"
