"""How are the lines of a log told as server-sent events, as long as somebody listens?

An event's id is the position after its line, so a client that comes back with it as
``Last-Event-ID`` misses nothing and gets nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from weakref import WeakSet

from asgiref.sync import SyncToAsync

from instances.errors import TooManyFollowers
from instances.logs.reader import LogReader, Position
from llamactl.core.shutdown_flag import is_shutting_down

logger = logging.getLogger(__name__)

MAX_FOLLOWERS = 100
"""In one web process."""
RETRY_AFTER_SECONDS = 10
LOOK_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
"""Proxies in between give up on what is silent, usually after 60 s."""
UNFINISHED_SECONDS = 1.0
"""After that a line is told as far as it has come: dots of a model that loads, a prompt."""
LONGEST_EVENT_BYTES = 1024 * 1024
BLOCK_BYTES = 64 * 1024
CUT_MARK = b" [cut: the line goes on]"

# A client that was cut off tries again after a second.
OPENING = b"retry: 1000\n\n"
HEARTBEAT = b": still there\n\n"

# A lone CR, as progress bars have it, ends a line, as it does in an event stream; one that is last
# may be half of a CR LF.
_LINE_END = re.compile(rb"\r?\n|\r(?=[^\n])")

READERS = ThreadPoolExecutor(2, thread_name_prefix="logs")
"""For the file system: it is local and quick, but one that hangs must not hold up the event loop,
nor the threads that others use."""


class EventWriter:
    """Makes events of what a reader reads."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._line = b""
        """What has come of a line that has no end yet."""
        self._line_since = 0.0
        self._is_told = False
        """Whether the beginning of the line has been."""

    def more(self, now: float) -> bytes:
        """The events since the last time; ``b""`` for none. Raises OSError."""
        while data := self._reader.read(BLOCK_BYTES):
            # None yet: a line that is longer than a block.
            if events := self._take(data, now):
                return events
        if self._line and now - self._line_since >= UNFINISHED_SECONDS:
            return self._unfinished(now)
        return b""

    def _take(self, data: bytes, now: float) -> bytes:
        text = self._line + data
        if not self._line:
            self._line_since = now
        end = self._reader.position
        events: list[bytes] = []
        begin = 0
        for match in _LINE_END.finditer(text):
            position = replace(end, offset=end.offset - (len(text) - match.end()))
            # Of a line that has been told as far as it had come, its end alone is no news.
            if match.start() > begin or not self._is_told:
                events.append(_event(position, text[begin : match.start()]))
            self._is_told = False
            begin = match.end()
        if begin:
            self._line_since = now
        self._line = text[begin:]
        if len(self._line) >= LONGEST_EVENT_BYTES:
            events.append(self._unfinished(now, mark=CUT_MARK))
        return b"".join(events)

    def _unfinished(self, now: float, *, mark: bytes = b"") -> bytes:
        """The line as far as it has come; the rest follows as an event of its own."""
        length = _whole_characters(self._line)
        line, self._line = self._line[:length], self._line[length:]
        self._line_since = now
        self._is_told = True
        end = self._reader.position
        # The bytes of half a character may be in the file before.
        position = replace(end, offset=max(0, end.offset - len(self._line)))
        return _event(position, line.removesuffix(b"\r") + mark) if line else b""


class LogFollower:
    """The events of a log, without an end. Django closes it when the client goes away.

    No generator: Django waits for nothing but its own, and what is awaited here holds nothing.
    """

    def __init__(
        self, reader: LogReader, instance: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises TooManyFollowers."""
        self._reader = reader
        self._writer = EventWriter(reader)
        self._instance = instance
        self._clock = clock
        self._has_begun = False
        self._is_closed = False
        _admit(self)

    def __aiter__(self) -> LogFollower:
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
                events = await loop.run_in_executor(READERS, self._writer.more, self._clock())
            except OSError as error:
                logger.warning(
                    "its log can't be followed: %s", error, extra={"instance": self._instance}
                )
                break
            if events:
                return events
            if self._clock() >= silent_until:
                return HEARTBEAT
            await asyncio.sleep(LOOK_SECONDS)
        raise StopAsyncIteration

    def close(self) -> None:
        self._is_closed = True
        _dismiss(self)
        self._reader.close()


def _release_thread() -> None:
    """End the thread that is kept for the synchronous parts of this request: they are over.

    It would be there until the response ends. Should one be needed again (to close the response),
    asgiref makes another.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is not None:
        executor = SyncToAsync.context_to_thread_executor.pop(context, None)
        if isinstance(executor, ThreadPoolExecutor):
            executor.shutdown(wait=False)


_lock = threading.Lock()
# Weak, because Django drops the response of a client that hung up early without closing it.
_followers: WeakSet[LogFollower] = WeakSet()


def _admit(follower: LogFollower) -> None:
    with _lock:
        if len(_followers) >= MAX_FOLLOWERS:
            raise TooManyFollowers(
                f"{MAX_FOLLOWERS} logs are being followed already, and no more can be; end one, or"
                " read the log without follow",
                retry_after=RETRY_AFTER_SECONDS,
            )
        _followers.add(follower)


def _dismiss(follower: LogFollower) -> None:
    with _lock:
        _followers.discard(follower)


def _event(position: Position, line: bytes) -> bytes:
    text = line.decode("utf-8", "replace").replace("\x00", "\ufffd")
    return f"id: {position}\ndata: {text}\n\n".encode()


def _whole_characters(text: bytes) -> int:
    """How much of ``text`` can be told: without a character that has only begun."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(text) - back if back < needed else len(text)
        if byte < 0x80:
            break
    return len(text)
