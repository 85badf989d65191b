"""Waiting for a condition, in both of its forms."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.until import until, until_async


def test_the_first_true_value_is_returned() -> None:
    values = iter([0, "", None, 7])
    assert until(lambda: next(values)) == 7


async def test_the_event_loop_goes_on_while_a_condition_is_awaited() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await until_async(event.is_set)


def test_a_failure_tells_the_condition_and_the_state_reached() -> None:
    seen: list[int] = []

    def is_reached() -> bool:
        seen.append(len(seen))
        return False

    with pytest.raises(pytest.fail.Exception, match=r"not within 0\.02 s: ten, but \d"):
        until(is_reached, lambda: f"ten, but {seen[-1]}", seconds=0.02)


def test_a_condition_is_checked_once_even_without_time() -> None:
    assert until(lambda: True, seconds=0)
