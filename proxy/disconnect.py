"""Detection of clients that disconnect while a response is under way."""

from __future__ import annotations

import asyncio
from functools import cached_property
from types import TracebackType

from llamactl.core.asgi_types import Receive
from proxy.body.body import ClientDisconnected
from proxy.body.upload import Upload

ROUND_SECONDS = 0.02
"""A response that ends within one round needs no listener; a task for each such response would be
a tenth of its cost. After two rounds at most, every request has a listener."""

_DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class DisconnectWatcher:
    """The disconnect watches of a web process, with one timer for all.

    A timer for each request would cost more than the check of its key.
    """

    def __init__(self) -> None:
        self._new: set[DisconnectWatch] = set()
        self._old: set[DisconnectWatch] = set()
        """The watches that were there at the last round."""
        self._timer: asyncio.TimerHandle | None = None

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Cached, because ``get_running_loop`` of Python 3.11 does a getpid() system call."""
        return asyncio.get_running_loop()

    def watch(self, receive: Receive, upload: Upload | None = None) -> DisconnectWatch:
        return DisconnectWatch(self, receive, upload)

    def add(self, watch: DisconnectWatch) -> None:
        self._new.add(watch)
        if self._timer is None:
            self._timer = self.loop.call_later(ROUND_SECONDS, self._on_round)

    def discard(self, watch: DisconnectWatch) -> None:
        self._new.discard(watch)
        self._old.discard(watch)

    def _on_round(self) -> None:
        self._timer = None
        due, self._old, self._new = self._old, self._new, set()
        for watch in due:
            watch.listen()
        if self._old:
            self._timer = self.loop.call_later(ROUND_SECONDS, self._on_round)


class DisconnectWatch:
    """Ends the block with ClientDisconnected as soon as the client disconnects.

    ``async with watcher.watch(receive): …`` listens for the disconnect message whatever the block
    waits for: a start, the first token, the next chunk. A disconnect during prefill would
    otherwise be noticed only by the next send, which is too late for the backend. Enter the block
    once the request body has been read, or before a WebSocket is accepted, or with the ``upload``
    that the rest of a body goes into.
    """

    def __init__(self, watcher: DisconnectWatcher, receive: Receive, upload: Upload | None) -> None:
        self._watcher = watcher
        self._receive = receive
        self._upload = upload
        self._is_disconnected = False
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task(self._watcher.loop)
        assert task is not None  # noqa: S101 - a coroutine always runs in a task here
        self._task = task
        self._cancellations_before = task.cancelling()
        if self._upload is None:
            self._watcher.add(self)
        else:
            self.listen()

    def listen(self) -> None:
        self._listener = asyncio.create_task(self._cancel_at_disconnect())

    async def _cancel_at_disconnect(self) -> None:
        upload = self._upload
        while (message := await self._receive())["type"] not in _DISCONNECTS:
            if upload is not None and message["type"] == "http.request":
                is_last = not message.get("more_body")
                await upload.put(message.get("body", b""), is_last=is_last)
        self._is_disconnected = True
        self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watcher.discard(self)
        if self._listener is None:
            return
        self._listener.cancel()
        try:
            await asyncio.wait((self._listener,))
        except asyncio.CancelledError:
            # The listener's cancel() may arrive only here, if the block ended without awaiting.
            if not self._is_disconnected:
                raise
        finally:
            # The task holds its exception, whose frame holds this object.
            self._listener = None
        if (
            self._is_disconnected
            and self._task.uncancel() <= self._cancellations_before
            and (kind is None or issubclass(kind, asyncio.CancelledError))
        ):
            raise ClientDisconnected from error
