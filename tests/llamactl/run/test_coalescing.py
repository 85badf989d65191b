from __future__ import annotations

import asyncio
from typing import Any

from llamactl.run.coalescing import Coalescing


class Wire:
    """Records what would be a system call each."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("closed")

    def set_protocol(self, protocol: Any) -> None:
        self.calls.append(protocol)

    def is_closing(self) -> bool:
        return "closed" in self.calls


async def test_writes_of_one_turn_leave_together() -> None:
    wire = Wire()
    transport = Coalescing(wire, asyncio.get_running_loop())
    transport.write(b"head")
    transport.write(b"body")
    assert wire.calls == []
    await asyncio.sleep(0)
    assert wire.calls == [b"headbody"]


async def test_a_later_write_leaves_by_itself() -> None:
    wire = Wire()
    transport = Coalescing(wire, asyncio.get_running_loop())
    for chunk in (b"one", b"two"):
        transport.write(chunk)
        await asyncio.sleep(0)
    assert wire.calls == [b"one", b"two"]


async def test_what_is_held_is_written_before_the_connection_closes() -> None:
    wire = Wire()
    transport = Coalescing(wire, asyncio.get_running_loop())
    transport.write(b"last words")
    transport.close()
    await asyncio.sleep(0)
    assert wire.calls == [b"last words", "closed"]
    assert transport.is_closing()


async def test_what_is_held_is_written_before_another_protocol_takes_over() -> None:
    wire, websocket = Wire(), asyncio.Protocol()
    transport = Coalescing(wire, asyncio.get_running_loop())
    transport.write(b"before")
    transport.set_protocol(websocket)
    assert wire.calls == [b"before", websocket]
