"""Longest stall of an event loop, and peak memory of this process.

A stall is counted in CPU time of the loop's own thread between two callbacks of a ticker, so a
loaded machine makes no stall, and waiting for a socket is none either.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_STALL_SECONDS = 0.05
"""The bound for each request, whatever its body."""


@dataclass
class LoopStall:
    """The longest stall so far."""

    seconds: float = 0.0


@contextlib.asynccontextmanager
async def measured_stall() -> AsyncIterator[LoopStall]:
    """Measure the longest stall of the running loop until the block ends.

    Without the garbage collector: it would walk the objects of all tests before, which takes 60 ms.
    """
    loop = asyncio.get_running_loop()
    stall = LoopStall()
    before = time.thread_time()
    handle: asyncio.Handle | None = None

    def tick() -> None:
        nonlocal before, handle
        now = time.thread_time()
        stall.seconds = max(stall.seconds, now - before)
        before = now
        # Each turn of the loop: a timer would join several turns into one.
        handle = loop.call_soon(tick)

    is_collecting = gc.isenabled()
    gc.disable()
    tick()
    try:
        yield stall
        # What the block did last is measured too.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        if is_collecting:
            gc.enable()
        if handle is not None:
            handle.cancel()


@dataclass
class PeakMemory:
    """Growth of this process beyond its resident memory at the beginning of the block."""

    grown_bytes: int = 0


@contextlib.contextmanager
def measured_memory() -> Iterator[PeakMemory]:
    """Measure the peak of resident memory within the block; known when the block has ended."""
    peak = PeakMemory()
    # "5" resets VmHWM to the present size (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    try:
        yield peak
    finally:
        peak.grown_bytes = _status("VmHWM") - before


def max_memory_bytes(body: bytes) -> int:
    """The bound for a request with this body, its own bytes included."""
    return 3 * len(body) + 2**20


def _status(name: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(name)
