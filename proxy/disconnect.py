"""Detection of clients that disconnect while a response is under way."""

from __future__ import annotations

import asyncio
from functools import cached_property
from types import TracebackType

from llamactl.core.asgi_types import Receive
from llamactl.core.errors import LlamactlError
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
    """Ends the block with ClientDisconnected as soon as the client disconnects, or by ``end_with``.

    ``async with watcher.watch(receive): …`` listens for the disconnect message whatever the block
    waits for: a start, the first token, the next chunk. A disconnect during prefill would
    otherwise be noticed only by the next send, which is too late for the backend. Enter the block
    once the request body has been read, or before a WebSocket is accepted, or with the ``upload``
    that the rest of a body goes into.
    """

    # The defaults are the class's: nearly no request changes them.
    _error: LlamactlError | None = None
    """The error of ``end_with``."""
    _task: asyncio.Task[object] | None = None
    """The task of the block; ``None`` before and after."""

    def __init__(self, watcher: DisconnectWatcher, receive: Receive, upload: Upload | None) -> None:
        self._watcher = watcher
        self._receive = receive
        self._upload = upload
        self._is_disconnected = False
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> DisconnectWatch:
        task = asyncio.current_task(self._watcher.loop)
        assert task is not None  # noqa: S101 - a coroutine always runs in a task here
        self._task = task
        self._cancellations_before = task.cancelling()
        if self._upload is None:
            self._watcher.add(self)
        else:
            self.listen()
        return self

    def end_with(self, error: LlamactlError) -> bool:
        """End the block with the error; returns False for a block that ends already."""
        if self._task is None or self._error is not None or self._is_disconnected:
            return False
        self._error = error
        self._task.cancel()
        return True

    def listen(self) -> None:
        self._listener = asyncio.create_task(self._cancel_at_disconnect())

    async def _cancel_at_disconnect(self) -> None:
        upload = self._upload
        while (message := await self._receive())["type"] not in _DISCONNECTS:
            if upload is not None and message["type"] == "http.request":
                is_last = not message.get("more_body")
                await upload.put(message.get("body", b""), is_last=is_last)
        self._is_disconnected = True
        if self._task is not None and self._error is None:
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watcher.discard(self)
        task, self._task = self._task, None
        if self._listener is None and self._error is None:
            return
        try:
            await self._end_listener()
        except asyncio.CancelledError:
            # Our own cancel() may arrive only here, if the block ended without awaiting.
            if not self._is_disconnected and self._error is None:
                raise
        if (
            (self._is_disconnected or self._error is not None)
            and task is not None
            and task.uncancel() <= self._cancellations_before
            and (kind is None or issubclass(kind, asyncio.CancelledError))
        ):
            raise self._ending() from error

    def _ending(self) -> Exception:
        """The error that ends the block; not kept, because its frames hold this object."""
        error, self._error = self._error, None
        return error if error is not None and not self._is_disconnected else ClientDisconnected()

    async def _end_listener(self) -> None:
        listener = self._listener
        if listener is None:
            await asyncio.sleep(0)
            return
        listener.cancel()
        try:
            await asyncio.wait((listener,))
        finally:
            # The task holds its exception, whose frame holds this object.
            self._listener = None
