from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

from llamactl.server.web.write_coalescing import Coalescing


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


async def test_what_is_held_for_a_client_that_left_meanwhile_is_dropped() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        loop = uvloop.new_event_loop()
        errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        await asyncio.to_thread(loop.run_until_complete, _write_to_one_that_left(ours))
        await asyncio.to_thread(loop.close)
    assert errors == []


async def _write_to_one_that_left(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=connection)
    transport.abort()
    # uvloop closes it in its next turn, and only then does a write raise.
    await asyncio.sleep(0.01)
    held = Coalescing(transport, loop)
    held.write(b"too late")
    await asyncio.sleep(0)
    held.write(b"later still")
    held.close()
