from __future__ import annotations

import asyncio

from proxy import cancel


async def test_task_that_swallows_its_first_cancellation_is_cancelled_again() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel.cancel_and_wait([task]), 5)
    assert task.cancelled()
    await cancel.cancel_and_wait([])
