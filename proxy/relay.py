"""Carrying one response from the backend to the client, for as long as both are there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from llamactl.core.asgi_types import Message, Send
from llamactl.core.error_format import event_for, family_of
from llamactl.core.errors import LlamactlError
from proxy.errors import BackendBrokeOff, BackendStalled
from proxy.headers import to_client
from proxy.upstream import BrokeOff, Stalled, Unanswered, UpstreamResponse, UpstreamTimeouts

logger = logging.getLogger(__name__)


def response_start(
    answer: UpstreamResponse,
    added_headers: Sequence[tuple[bytes, bytes]],
    *,
    queued_seconds: float,
    loaded_seconds: float,
    answered_seconds: float,
) -> Message:
    """Status and headers, with how long the request waited here, for the model to be loaded, and
    for the backend's first byte."""
    headers = to_client(answer.headers, added_headers)
    if answer.status in _WITHOUT_BODY:
        # It says what a body would be; uvicorn would wait for that, and a 204 must not have it.
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    timing = b"queue;dur=%.1f, load;dur=%.1f, ttfb;dur=%.1f" % (
        queued_seconds * 1e3,
        loaded_seconds * 1e3,
        answered_seconds * 1e3,
    )
    headers.append((b"server-timing", timing))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


_WITHOUT_BODY = (204, 304)


class SilenceWatch:
    """Ends a read with Stalled that waits longer than it may.

    One timer for the whole body, moved on only when it fires: a stream has a chunk every few
    milliseconds, and a timeout around each read would set a timer for each.
    """

    def __init__(self, answer: UpstreamResponse, seconds: float) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self.wait(seconds)
        self._timer = self._loop.call_later(seconds, self._look)

    def wait(self, seconds: float) -> None:
        """From now on it is the backend's turn, for so long."""
        self._seconds = seconds
        self._since: float | None = self._loop.time()

    def rest(self) -> None:
        """Now it is the client's, who may take its time."""
        self._since = None

    def _look(self) -> None:
        left = self._seconds
        if self._since is not None:
            left = self._since + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._answer.fail(Stalled(f"nothing came for {self._seconds:g} s"))

    def end(self) -> None:
        self._timer.cancel()


async def first_piece(answer: UpstreamResponse, limits: UpstreamTimeouts) -> bytes:
    """The beginning of the backend's body; ``b""`` where it has none.

    For a stream llama.cpp sends its headers at once, and nothing more before it has read the
    prompt. Until there is something to pass on the request can still be sent again. Raises
    Unanswered or Stalled; the connection is closed then.
    """
    piece = None
    try:
        if limits.first_byte:
            async with asyncio.timeout(limits.first_byte):
                piece = await answer.read()
        else:
            piece = await answer.read()
        return piece
    except BrokeOff as error:
        raise Unanswered(str(error)) from error
    except TimeoutError as error:
        raise Stalled(f"nothing came within {limits.first_byte:g} s") from error
    finally:
        if piece is None:
            answer.release()


async def relay(
    answer: UpstreamResponse,
    send: Send,
    *,
    first: bytes | None = None,
    instance: str,
    path: str,
    limits: UpstreamTimeouts,
) -> None:
    """Send the backend's body on, after ``response_start``: each piece as it comes.

    ``first`` is what was read of it already.

    Nothing is held back and nothing re-framed; ``send`` waits while the client reads slowly, and
    while it waits no more is read from the backend than one buffer. A backend that dies or falls
    silent in the middle ends an event stream with an error event, in the shape that clients of
    the backend's ``path`` expect; any other body just stops, without its end mark, which the
    client can tell from a whole one.
    """
    piece = first
    silence = None
    if limits.first_byte and first is None and not answer.is_at_end:
        silence = SilenceWatch(answer, limits.first_byte)
    try:
        while True:
            if piece is None:
                piece = await answer.read()
            is_last = answer.is_at_end
            if silence is not None:
                silence.rest()
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
            if is_last:
                return
            piece = None
            if silence is not None:
                silence.wait(limits.idle or _NEVER)
            elif limits.idle:
                silence = SilenceWatch(answer, limits.idle)
    except (BrokeOff, Stalled) as error:
        logger.warning("the backend broke off: %r", error, extra={"instance": instance})
        if not _may_be_ended(answer):
            return
        told: LlamactlError = BackendBrokeOff()
        if isinstance(error, Stalled):
            told = BackendStalled(f"The backend fell silent ({error}); see its log.")
        await send(
            {
                "type": "http.response.body",
                "body": event_for(family_of(path), told),
                "more_body": False,
            }
        )
    finally:
        if silence is not None:
            silence.end()


def _may_be_ended(answer: UpstreamResponse) -> bool:
    """Whether an event of ours can follow what has come: in plain events of no fixed length."""
    kind = (answer.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    is_plain = answer.length is None and answer.header(b"content-encoding") is None
    return is_plain and kind == b"text/event-stream"


_NEVER = 1e9
