"""Detection of clients that disconnect while an answer is under way."""

from __future__ import annotations

import asyncio
from functools import cached_property
from types import TracebackType

from llamactl.core.asgi_types import Receive
from proxy.body.body import ClientDisconnected
from proxy.body.upload import Upload

ROUND_SECONDS = 0.02
"""Answers that come within one of these need nobody who listens for the client's leaving; a task
for each would be a tenth of their cost. After two at the latest somebody does."""


_DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class DisconnectWatcher:
    """Who leaves while a request is under way? One timer for all requests of a web process.

    A timer for each would cost more than to check its key.
    """

    def __init__(self) -> None:
        self._new: set[DisconnectWatch] = set()
        self._known: set[DisconnectWatch] = set()
        """Those that were there at the last round."""
        self._timer: asyncio.TimerHandle | None = None

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Kept, because Python 3.11 asks the system for the process's id whenever it is asked."""
        return asyncio.get_running_loop()

    def watch(self, receive: Receive, upload: Upload | None = None) -> DisconnectWatch:
        return DisconnectWatch(self, receive, upload)

    def join(self, watch: DisconnectWatch) -> None:
        self._new.add(watch)
        if self._timer is None:
            self._timer = self.loop.call_later(ROUND_SECONDS, self._go_round)

    def leave(self, watch: DisconnectWatch) -> None:
        self._new.discard(watch)
        self._known.discard(watch)

    def _go_round(self) -> None:
        self._timer = None
        late, self._known, self._new = self._known, self._new, set()
        for watch in late:
            watch.begin()
        if self._known:
            self._timer = self.loop.call_later(ROUND_SECONDS, self._go_round)


class DisconnectWatch:
    """Ends the block with ClientDisconnected as soon as the client disconnects.

    ``async with hang_ups.watch(receive): …`` listens for the disconnect message all the time,
    whatever the block is waiting for (a start, the first token, the next chunk): a client that
    leaves during prefill would otherwise be noticed by the next send, which is too late for the
    backend. Enter it once the request body has been read, or before a WebSocket is accepted, or
    with the ``upload`` that the rest of a body is to go into.
    """

    def __init__(
        self, hang_ups: DisconnectWatcher, receive: Receive, upload: Upload | None
    ) -> None:
        self._hang_ups = hang_ups
        self._receive = receive
        self._upload = upload
        self._is_gone = False
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task(self._hang_ups.loop)
        assert task is not None  # noqa: S101 - a coroutine always runs in a task here
        self._task = task
        self._cancellations_before = task.cancelling()
        if self._upload is None:
            self._hang_ups.join(self)
        else:
            self.begin()

    def begin(self) -> None:
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
        self._hang_ups.leave(self)
        if self._listener is None:
            return
        self._listener.cancel()
        try:
            await asyncio.wait((self._listener,))
        except asyncio.CancelledError:
            # Our own cancel() may arrive only here, when the block ended without awaiting again.
            if not self._is_gone:
                raise
        finally:
            self._listener = None  # it holds what ended it, with a frame that holds us
        if (
            self._is_gone
            and self._task.uncancel() <= self._cancellations_before
            and (kind is None or issubclass(kind, asyncio.CancelledError))
        ):
            raise ClientDisconnected from error
