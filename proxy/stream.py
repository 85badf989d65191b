"""Carrying one response from the backend to the client, for as long as both are there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType

import aiohttp
import orjson

from llamactl.asgi_types import Receive, Send
from proxy.body import ClientGone
from proxy.headers import to_client

logger = logging.getLogger(__name__)

LISTEN_AFTER_SECONDS = 0.02
"""Answers that come sooner need nobody who listens; a task for each is a tenth of their cost."""


_DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class HangUpWatch:
    """Ends the block with ClientGone as soon as the client disconnects.

    ``async with HangUpWatch(receive): …`` listens for the disconnect message all the time, whatever
    the block is waiting for (a start, the first token, the next chunk): a client that leaves
    during prefill would otherwise be noticed by the next send, which is too late for the backend.
    Enter it once the request body has been read, or before a WebSocket is accepted.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine always runs in a task here
        self._task = task
        self._cancellations_before = task.cancelling()
        self._listener: asyncio.Task[None] | None = None
        self._timer = loop.call_later(LISTEN_AFTER_SECONDS, self._begin)

    def _begin(self) -> None:
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] not in _DISCONNECTS:
            pass
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


async def relay(
    response: aiohttp.ClientResponse,
    send: Send,
    *,
    instance: str,
    added_headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send the backend's response on: status, headers, then each chunk as it comes.

    Nothing is held back and nothing re-framed; ``send`` waits while the client reads slowly, and
    while it waits no more is read from the backend than one buffer. A backend that dies in the
    middle ends an event stream with an error event; any other body just stops, without its end
    mark, which the client can tell from a whole one.
    """
    headers = to_client(response.raw_headers, added_headers)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    left = response.content_length
    if left is not None and response.method == "HEAD":
        left = 0
    read = response.content.readany
    try:
        while left != 0:
            chunk = await read()
            if not chunk:
                break
            if left is not None:
                left -= len(chunk)
            is_last = left == 0
            await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
            if is_last:
                return
    except aiohttp.ClientError as error:
        logger.warning("the backend broke off: %r", error, extra={"instance": instance})
        if response.content_type != "text/event-stream":
            return
        await send({"type": "http.response.body", "body": _BROKEN_OFF, "more_body": False})
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


_BROKEN_OFF = (
    b"\n\ndata: "
    + orjson.dumps(
        {
            "error": {
                "message": "The backend ended before the response was complete; see its log.",
                "type": "server_error",
                "param": None,
                "code": "backend_broke_off",
            }
        }
    )
    + b"\n\n"
)
"""Begins with an empty line: the backend may have died in the middle of an event."""
