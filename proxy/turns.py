"""Turns of CPU work on the event loop: bounded, and one at a time.

Work that grows with a request's body is written as a generator that yields after each small step.
The runs here give the loop back every few milliseconds, for as long as the turn took: a request to
Django needs the loop some ten times and the interpreter for its thread in between, and would wait
for a turn each time. One lock is for all requests of a web process, because ten runs at once would
each take a turn between two callbacks of everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import perf_counter
from typing import TypeVar

TURN_SECONDS = 0.004
"""The last step of a turn may take as long again."""
SHORT_SECONDS = 0.0005
"""A run that is done within this time makes no other run wait."""

T = TypeVar("T")


class Turns:
    """The queue for turns; made once for each event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run the steps to their end and return their result."""
        while True:
            async with self._lock:
                started_at = perf_counter()
                end = _run_until(steps, started_at + TURN_SECONDS)
                took_seconds = perf_counter() - started_at
                # Within the lock: the others would all take their turns at once otherwise.
                if end is None:
                    await asyncio.sleep(took_seconds)
                elif took_seconds > SHORT_SECONDS:
                    await asyncio.sleep(0)
                if end is not None:
                    result: T = end.value
                    return result


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
