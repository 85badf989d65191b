"""Turns of CPU work: bounded, and with pauses in which the event loop serves the others."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import perf_counter

from proxy.turns import TURN_SECONDS, Turns, at_once

TURNS = 10


def steps_of(turns: int) -> Generator[None, None, str]:
    """Work for about this number of turns."""
    for _ in range(4 * turns):
        ends_at = perf_counter() + TURN_SECONDS / 4
        while perf_counter() < ends_at:
            pass
        yield
    return "done"


async def test_result_is_that_of_the_steps() -> None:
    assert await Turns().run(steps_of(0)) == "done"
    assert at_once(steps_of(1)) == "done"


async def test_loop_is_free_for_as_long_as_a_turn_takes() -> None:
    # It should not put a turn into each pass of the loop: a request needs several passes.
    work = asyncio.create_task(Turns().run(steps_of(TURNS)))
    passes = 0
    while not work.done():
        await asyncio.sleep(0)
        passes += 1
    assert passes > 10 * TURNS


async def test_work_in_a_single_turn_does_not_wait() -> None:
    work = asyncio.create_task(Turns().run(steps_of(0)))
    await asyncio.sleep(0)
    assert work.done()
