"""Waiting for a condition: a bound and a message instead of a sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

WAIT_SECONDS = 30.0
"""The usual bound: generous, since a loaded machine must not fail a test. Not an expectation."""
MIN_PAUSE_SECONDS = 0.005
MAX_PAUSE_SECONDS = 0.25

T = TypeVar("T")


def until(
    condition: Callable[[], T | None],
    what: str | Callable[[], str] = "",
    *,
    seconds: float = WAIT_SECONDS,
) -> T:
    """Return the condition's first true value; fail the test with ``what`` after ``seconds``.

    ``what`` names the condition. A function is called after a failure only, and can add the state
    that was reached.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        if value := condition():
            return value
        _check_deadline(started, deadline, what, seconds)
        time.sleep(_pause(started))


async def until_async(
    condition: Callable[[], T | None],
    what: str | Callable[[], str] = "",
    *,
    seconds: float = WAIT_SECONDS,
) -> T:
    """Do the same as ``until`` without blocking the event loop."""
    __tracebackhide__ = True
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        if value := condition():
            return value
        _check_deadline(started, deadline, what, seconds)
        await asyncio.sleep(_pause(started))


def _check_deadline(
    started: float, deadline: float, what: str | Callable[[], str], seconds: float
) -> None:
    """Fail the test if the last check of the condition started after the deadline.

    The start counts, not the end: on a machine that was suspended, the condition is checked once
    more before the failure.
    """
    __tracebackhide__ = True
    if started >= deadline:
        pytest.fail(f"not within {seconds:g} s: {what() if callable(what) else what}")


def _pause(started: float) -> float:
    """Pause twice as long as the check took, so that an expensive check leaves the machine free."""
    return min(max(2 * (time.monotonic() - started), MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
