"""Large bodies: no step of reading and renaming them blocks the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from llamactl.core.turns import Turns
from proxy.body.body import read_routed
from proxy.body.joined import STEP_BYTES, joined
from proxy.body.json_model import json_model
from tests.support.loop_stall import (
    MAX_STALL_SECONDS,
    max_memory_bytes,
    measured_memory,
    measured_stall,
)

PIECE = b"x" * 65_536


async def test_parts_are_joined_in_their_order() -> None:
    turns = Turns()
    for size in (0, 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES):
        parts: list[bytes | memoryview] = [b"begin", memoryview(bytes(size)), b"end"]
        assert await joined(parts, turns) == b"begin" + bytes(size) + b"end"


async def test_the_largest_body_is_read_and_renamed_in_turns() -> None:
    count = 2**26 // len(PIECE) - 1
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"model":"org/a","x":"', "more_body": True},
        *[{"type": "http.request", "body": PIECE, "more_body": True}] * count,
        {"type": "http.request", "body": b'"}', "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)  # each piece comes in a turn of its own, as from a socket
        return messages.pop(0)

    turns = Turns()
    with measured_memory() as peak:
        async with measured_stall() as reading:
            body, _ = await read_routed(receive, [], 2**26, Turns())
        assert isinstance(body, bytes)
        async with measured_stall() as renaming:
            found = await json_model(body, turns)
            renamed = await joined(found.parts_with(body, "b"), turns)
    assert renamed.startswith(b'{"model":"b","x":"xx')
    assert len(renamed) == len(body) - 4
    assert reading.seconds < MAX_STALL_SECONDS
    assert renaming.seconds < MAX_STALL_SECONDS
    assert peak.grown_bytes < max_memory_bytes(body)
