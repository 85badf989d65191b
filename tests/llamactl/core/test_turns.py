"""Turns of CPU work: bounded, and with pauses in which the event loop serves the others."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Generator
from time import perf_counter

from llamactl.core.turns import TURN_SECONDS, Turns, at_once
from tests.support.until import until_async

TURNS = 10


class Failed(Exception):
    """An error of some work."""


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


async def test_works_take_their_parts_in_turn() -> None:
    # It should not let a large input wait for the end of a larger one.
    turns, done = Turns(), []

    async def work(name: str, size: int) -> None:
        await turns.run(steps_of(size))
        done.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(work("large", 2 * TURNS))
        group.create_task(work("small", 2))
    assert done == ["small", "large"]


async def test_an_error_in_a_later_turn_is_the_callers_and_leaves_no_garbage() -> None:
    def failing() -> Generator[None, None, None]:
        yield from steps_of(2)
        raise Failed

    turns = Turns()
    gc.collect()
    gc.disable()
    try:
        error = None
        try:
            await turns.run(failing())
        except Failed as caught:
            error = weakref.ref(caught)
        assert error is not None
        assert error() is None
    finally:
        gc.enable()
    assert await turns.run(steps_of(2)) == "done"


async def test_work_of_a_cancelled_request_takes_no_further_turn() -> None:
    steps, turns = 0, Turns()

    def counted() -> Generator[None, None, None]:
        nonlocal steps
        for _ in steps_of(100 * TURNS):
            steps += 1
            yield

    work = asyncio.create_task(turns.run(counted()))
    await until_async(lambda: steps > 2)
    work.cancel()
    await asyncio.wait([work])
    before = steps
    assert await turns.run(steps_of(2)) == "done"
    assert steps == before
