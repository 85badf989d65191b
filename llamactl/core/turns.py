"""Turns of CPU work on the event loop: bounded work between two passes of the loop.

Work that grows with an input is cut into parts, and the parts of all connections or requests wait
in one queue: a hundred of them with a turn each would take a hundred turns between two callbacks of
all other requests. After a turn the loop is free for as long as the turn took: a request to Django
needs the loop some ten times and the interpreter for its thread in between, and would wait for a
turn each time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Generic, TypeVar

TURN_SECONDS = 0.004
"""The last part of a turn may take as long again."""
PART_SECONDS = TURN_SECONDS / 2
"""The part of steps that others may wait behind."""
SHORT_SECONDS = 0.0005
"""Steps that are done within this time take no turn, if nothing is queued."""

T = TypeVar("T")
Part = Callable[[], bool]
"""Does one part of some work, and returns whether another part is due."""


class Turns:
    """A queue of work on one event loop, served round robin."""

    def __init__(self) -> None:
        self._queue: deque[Part] = deque()
        self._is_scheduled = False

    def add(self, part: Part) -> None:
        """Queue work, which is called for each of its parts."""
        self._queue.append(part)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run the steps to their end and return their result.

        ``steps`` yields after each small step, of 2 ms at most.
        """
        if not self._is_scheduled:
            end = _run_until(steps, perf_counter() + SHORT_SECONDS)
            if end is not None:
                result: T = end.value
                return result
        work = _Work(steps)
        self.add(work.do_part)
        await work.ended
        return work.result()

    def _take_turn(self) -> None:
        began_at = perf_counter()
        took_seconds = 0.0
        while self._queue and took_seconds < TURN_SECONDS:
            do_part = self._queue.popleft()
            if do_part():
                self._queue.append(do_part)
            took_seconds = perf_counter() - began_at
        if self._queue:
            asyncio.get_running_loop().call_later(took_seconds, self._take_turn)
        else:
            self._is_scheduled = False


class _Work(Generic[T]):
    """Queued steps, and their result."""

    def __init__(self, steps: Generator[None, None, T]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._steps = steps
        self._result: T
        self._error: Exception | None = None

    def do_part(self) -> bool:
        if self.ended.done():  # its caller was cancelled
            return False
        try:
            end = _run_until(self._steps, perf_counter() + PART_SECONDS)
        except Exception as error:
            self._error = error
        else:
            if end is None:
                return True
            self._result = end.value
        self.ended.set_result(None)
        return False

    def result(self) -> T:
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error  # it would be in a cycle with this frame


def _run_until(steps: Generator[None, None, T], ends_at: float) -> StopIteration | None:
    """Run steps until a time of ``perf_counter``; returns the end, if it was reached."""
    while perf_counter() < ends_at:
        try:
            next(steps)
        except StopIteration as end:
            return end.with_traceback(None)
    return None


def at_once(steps: Generator[None, None, T]) -> T:
    """Run the steps without a pause, for a small input."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
