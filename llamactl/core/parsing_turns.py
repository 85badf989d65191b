"""Turns for parsing: bounded work between two callbacks of the event loop.

A parser calls back for each chunk, header, pipelined request or frame, and these may have a few
bytes each. uvloop reads 256,000 bytes at once, and libuv up to 32 times in a row: 43,000 chunks of
one byte, or half a second of WebSocket pings. So input above a few KiB is held and parsed in parts.
One queue is for all connections of an event loop, because a hundred connections with a turn each
would take a hundred turns between two callbacks of everybody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Protocol, cast
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

TURN_SECONDS = 0.004
"""The last part of a turn may take as long again."""


class HeldTransport(Protocol):
    """The transport of held input."""

    def is_closing(self) -> bool:
        """Whether the rest of the input is of no use."""

    def hold_reading(self) -> None:
        """Read nothing, even if the application resumes reading."""

    def release_reading(self) -> None:
        """Read again, unless the application has paused reading."""

    def abort(self) -> None:
        """Close the connection at once."""


class HeldInput:
    """Received bytes of one connection, which are parsed in parts."""

    def __init__(
        self,
        data: bytes | memoryview,
        transport: HeldTransport,
        *,
        part_bytes: int,
        parse: Callable[[bytes], None],
        may_parse: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        """Hold the input, and queue it for its first turn.

        ``parse`` gets memoryviews, which parsers take like bytes. ``may_parse``: whether the
        connection takes input now; ``go_on`` asks again. ``on_end`` is called after the last part,
        before reading is resumed.
        """
        self._rest = memoryview(data)
        self._transport = transport
        self._part_bytes = part_bytes
        self._parse = parse
        self._may_parse = may_parse
        self._on_end = on_end
        self._is_queued = False
        transport.hold_reading()
        self.go_on()

    def go_on(self) -> None:
        """Queue the rest, if it is not queued."""
        if not self._is_queued:
            self._is_queued = True
            _turns().add(self)

    def drop(self) -> None:
        """Forget the rest."""
        self._rest = self._rest[:0]

    def step(self) -> bool:
        """Parse one part in a turn; returns whether the next one is due."""
        if not self._may_parse() or not self._rest:
            self._is_queued = False
            return False
        part, self._rest = self._rest[: self._part_bytes], self._rest[self._part_bytes :]
        try:
            self._parse(cast(bytes, part))
        except Exception:
            logger.exception("a connection is closed, because its input could not be parsed")
            self.drop()
            self._transport.abort()
        if self._rest and not self._transport.is_closing():
            return True
        self.drop()
        self._on_end()
        self._transport.release_reading()
        return False


class ParsingTurns:
    """The queue of an event loop: round robin, as long at most as the loop had for others."""

    def __init__(self) -> None:
        self._queue: deque[HeldInput] = deque()
        self._is_scheduled = False

    def add(self, held: HeldInput) -> None:
        """Queue a connection's input."""
        self._queue.append(held)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        began_at = perf_counter()
        took_seconds = 0.0
        while self._queue and took_seconds < TURN_SECONDS:
            held = self._queue.popleft()
            if held.step():
                self._queue.append(held)
            took_seconds = perf_counter() - began_at
        if self._queue:
            asyncio.get_running_loop().call_later(took_seconds, self._run)
        else:
            self._is_scheduled = False


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, ParsingTurns] = WeakKeyDictionary()


def _turns() -> ParsingTurns:
    loop = asyncio.get_running_loop()
    turns = _of_loop.get(loop)
    if turns is None:
        turns = _of_loop[loop] = ParsingTurns()
    return turns
