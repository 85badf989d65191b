"""Carrying one response from the backend to the client, for as long as both are there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType

import aiohttp

from llamactl.asgi_types import Message, Receive, Send
from llamactl.errors import LlamactlError
from proxy.body import ClientGone
from proxy.errors import BackendBrokeOff, BackendStalled, event
from proxy.headers import to_client
from proxy.upload import Upload
from proxy.upstream import Limits, Stalled, Unanswered

logger = logging.getLogger(__name__)

LISTEN_AFTER_SECONDS = 0.05
"""Answers that come sooner need nobody who listens; a task for each is a tenth of their cost."""


_DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class HangUpWatch:
    """Ends the block with ClientGone as soon as the client disconnects.

    ``async with HangUpWatch(receive): …`` listens for the disconnect message all the time, whatever
    the block is waiting for (a start, the first token, the next chunk): a client that leaves
    during prefill would otherwise be noticed by the next send, which is too late for the backend.
    Enter it once the request body has been read, or before a WebSocket is accepted, or with the
    ``upload`` that the rest of a body is to go into. While the backend takes nothing of that,
    nothing is read from the client either, and so not the end of its connection.
    """

    def __init__(self, receive: Receive, upload: Upload | None = None) -> None:
        self._receive = receive
        self._upload = upload
        self._is_gone = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine always runs in a task here
        self._task = task
        self._cancellations_before = task.cancelling()
        self._listener: asyncio.Task[None] | None = None
        after_seconds = LISTEN_AFTER_SECONDS if self._upload is None else 0.0
        self._timer = loop.call_later(after_seconds, self._begin)

    def _begin(self) -> None:
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        upload = self._upload
        while (message := await self._receive())["type"] not in _DISCONNECTS:
            if upload is not None and message["type"] == "http.request":
                is_last = not message.get("more_body")
                await upload.put(message.get("body", b""), is_last=is_last)
        self._is_gone = True
        self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._listener is None:
            return
        self._listener.cancel()
        try:
            await asyncio.wait((self._listener,))
        except asyncio.CancelledError:
            # Our own cancel() may arrive only here, when the block ended without awaiting again.
            if not self._is_gone:
                raise
        if (
            self._is_gone
            and self._task.uncancel() <= self._cancellations_before
            and (kind is None or issubclass(kind, asyncio.CancelledError))
        ):
            raise ClientGone from error


def response_start(
    response: aiohttp.ClientResponse,
    added_headers: Sequence[tuple[bytes, bytes]],
    queued_seconds: float,
    answered_seconds: float,
) -> Message:
    """Status and headers, with how long the request waited here, and for the backend."""
    headers = to_client(response.raw_headers, added_headers)
    if response.status in _WITHOUT_BODY:
        # It says what a body would be; uvicorn would wait for that, and a 204 must not have it.
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    headers.append(
        (
            b"server-timing",
            b"queue;dur=%.1f, ttfb;dur=%.1f" % (queued_seconds * 1e3, answered_seconds * 1e3),
        )
    )
    return {"type": "http.response.start", "status": response.status, "headers": headers}


_WITHOUT_BODY = (204, 304)


class SilenceWatch:
    """Ends a read with Stalled that waits longer than it may.

    One timer for the whole body, moved on only when it fires: a stream has a chunk every few
    milliseconds, and aiohttp's own timeout sets a timer for each.
    """

    def __init__(self, content: aiohttp.StreamReader, seconds: float) -> None:
        self._content = content
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
            self._content.set_exception(Stalled(f"nothing came for {self._seconds:g} s"))

    def end(self) -> None:
        self._timer.cancel()


async def first_piece(response: aiohttp.ClientResponse, limits: Limits) -> bytes:
    """The beginning of the backend's body; ``b""`` where it has none.

    For a stream llama.cpp sends its headers at once, and nothing more before it has read the
    prompt. Until there is something to pass on the request can still be sent again. Raises
    Unanswered or Stalled; the connection is closed then.
    """
    is_there = False
    try:
        if limits.first_byte:
            async with asyncio.timeout(limits.first_byte):
                piece = await response.content.readany()
        else:
            piece = await response.content.readany()
        is_there = True
        return piece
    except aiohttp.ClientError as error:
        raise Unanswered(repr(error)) from error
    except TimeoutError as error:
        raise Stalled(f"nothing came within {limits.first_byte:g} s") from error
    finally:
        if not is_there:
            response.close()


async def relay(
    response: aiohttp.ClientResponse,
    send: Send,
    *,
    first: bytes | None = None,
    instance: str,
    path: str,
    limits: Limits,
) -> None:
    """Send the backend's body on, after ``response_start``: each chunk as it comes.

    ``first`` is what was read of it already.

    Nothing is held back and nothing re-framed; ``send`` waits while the client reads slowly, and
    while it waits no more is read from the backend than one buffer. A backend that dies or falls
    silent in the middle ends an event stream with an error event, in the shape that clients of
    the backend's ``path`` expect; any other body just stops, without its end mark, which the
    client can tell from a whole one.
    """
    left = response.content_length
    if left is not None and (response.method == "HEAD" or response.status in _WITHOUT_BODY):
        left = 0
    content = response.content
    read = content.readany
    idle_seconds = limits.idle
    silence = None
    if limits.first_byte and first is None and left != 0:
        silence = SilenceWatch(content, limits.first_byte)
    chunk = first
    try:
        while left != 0:
            if chunk is None:
                chunk = await read()
            if not chunk:
                break
            if left is not None:
                left -= len(chunk)
            is_last = left == 0
            if silence is not None:
                silence.rest()
            await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
            if is_last:
                return
            chunk = None
            if silence is not None:
                silence.wait(idle_seconds or _NEVER)
            elif idle_seconds:
                silence = SilenceWatch(content, idle_seconds)
    except (aiohttp.ClientError, Stalled) as error:
        logger.warning("the backend broke off: %r", error, extra={"instance": instance})
        is_event_stream = response.content_type == "text/event-stream"
        if not is_event_stream or left is not None or "Content-Encoding" in response.headers:
            return
        told: LlamactlError = BackendBrokeOff()
        if isinstance(error, Stalled):
            told = BackendStalled(f"The backend fell silent ({error}); see its log.")
        await send({"type": "http.response.body", "body": event(path, told), "more_body": False})
        return
    finally:
        if silence is not None:
            silence.end()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


_NEVER = 1e9
