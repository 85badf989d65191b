"""Server-sent events of a followed log.

The id of an event is the position after its line. A client that reconnects with the id as
``Last-Event-ID`` misses no line and gets none twice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

from asgiref.sync import SyncToAsync

from instances.errors import TooManyFollowers
from llamactl.core.shutdown_flag import is_shutting_down
from nodes.agent import FollowedLog, LogLine
from nodes.errors import LogUnreadable

logger = logging.getLogger(__name__)

MAX_FOLLOWERS = 100
"""Event streams at once in one web process."""
RETRY_AFTER_SECONDS = 10
POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
"""Longest silence: reverse proxies close a silent response, usually after 60 s."""

# A disconnected client reconnects after a second.
OPENING = b"retry: 1000\n\n"
HEARTBEAT = b": still there\n\n"

READERS = ThreadPoolExecutor(2, thread_name_prefix="logs")
"""Threads for reading logs: a hanging disk holds up neither the event loop nor other threads."""


class LogEventStream:
    """Endless response body of a followed log. Django closes it on a disconnect.

    Not a generator: Django closes only generators of its own, and a generator would be left
    waiting until its finalizer runs.
    """

    def __init__(
        self, log: FollowedLog, instance: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises TooManyFollowers, after closing ``log``."""
        self._log = log
        self._instance = instance
        self._clock = clock
        self._has_begun = False
        self._is_closed = False
        try:
            _admit(self)
        except TooManyFollowers:
            log.close()
            raise

    def __aiter__(self) -> LogEventStream:
        return self

    async def __anext__(self) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            _release_thread()
            return OPENING
        loop = asyncio.get_running_loop()
        silent_until = self._clock() + HEARTBEAT_SECONDS
        while not (self._is_closed or is_shutting_down()):
            try:
                events = await loop.run_in_executor(READERS, self._read_events)
            except LogUnreadable as error:
                logger.warning(
                    "the log can't be followed any more: %s",
                    error.reason,
                    extra={"instance": self._instance},
                )
                break
            if events:
                return events
            if self._clock() >= silent_until:
                return HEARTBEAT
            await asyncio.sleep(POLL_SECONDS)
        raise StopAsyncIteration

    def close(self) -> None:
        self._is_closed = True
        _dismiss(self)
        self._log.close()

    def _read_events(self) -> bytes:
        return b"".join(map(_event, self._log.read_lines()))


def _event(line: LogLine) -> bytes:
    return f"id: {line.position}\ndata: {line.text}\n\n".encode()


def _release_thread() -> None:
    """End the thread that asgiref keeps for the synchronous parts of this request.

    The synchronous parts are over, and the thread would stay until the response ends. asgiref
    makes another thread where one is needed again, to close the response.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is not None:
        executor = SyncToAsync.context_to_thread_executor.pop(context, None)
        if isinstance(executor, ThreadPoolExecutor):
            executor.shutdown(wait=False)


_lock = threading.Lock()
# Weak: Django drops the response of an early disconnect without closing it.
_streams: WeakSet[LogEventStream] = WeakSet()


def _admit(stream: LogEventStream) -> None:
    with _lock:
        if len(_streams) >= MAX_FOLLOWERS:
            raise TooManyFollowers(
                f"{MAX_FOLLOWERS} logs are being followed already, and no more can be; end one, or"
                " read the log without follow",
                retry_after=RETRY_AFTER_SECONDS,
            )
        _streams.add(stream)


def _dismiss(stream: LogEventStream) -> None:
    with _lock:
        _streams.discard(stream)
