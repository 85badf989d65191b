"""Ending the tasks that run beside the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

PATIENCE_SECONDS = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and return once all have ended.

    Again and again, because a cancellation can get lost on its way through a client library that
    catches it together with its own time-outs; a loop would then run on, and its waiter wait on.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=PATIENCE_SECONDS)
