"""Write coalescing, on a recording transport and on a closed socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

from llamactl.server.web.write_coalescing import LARGE_BYTES, MAX_PIECES, CoalescingTransport


class Wire:
    """A transport that records each system call it would make."""

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


async def test_writes_of_one_turn_are_sent_together() -> None:
    wire = Wire()
    transport = CoalescingTransport(wire, asyncio.get_running_loop())
    transport.write(b"head")
    transport.write(b"body")
    assert wire.calls == []
    await asyncio.sleep(0)
    assert wire.calls == [b"headbody"]


async def test_a_write_of_a_later_turn_is_sent_alone() -> None:
    wire = Wire()
    transport = CoalescingTransport(wire, asyncio.get_running_loop())
    for chunk in (b"one", b"two"):
        transport.write(chunk)
        await asyncio.sleep(0)
    assert wire.calls == [b"one", b"two"]


async def test_a_turn_without_an_end_does_not_fill_the_memory() -> None:
    wire = Wire()
    transport = CoalescingTransport(wire, asyncio.get_running_loop())
    for _ in range(10):
        transport.write(b"head")
        transport.write(bytes(LARGE_BYTES + 1))
    assert wire.calls == [b"head" + bytes(LARGE_BYTES + 1)] * 10
    for _ in range(10 * MAX_PIECES):
        transport.write(b"token")
    assert len(wire.calls) > 15
    await asyncio.sleep(0)
    tokens = [call for call in wire.calls if isinstance(call, bytes)]
    assert b"".join(tokens).count(b"token") == 10 * MAX_PIECES


async def test_held_writes_are_sent_before_the_connection_closes() -> None:
    wire = Wire()
    transport = CoalescingTransport(wire, asyncio.get_running_loop())
    transport.write(b"last words")
    transport.close()
    await asyncio.sleep(0)
    assert wire.calls == [b"last words", "closed"]
    assert transport.is_closing()


async def test_held_writes_are_sent_before_another_protocol_takes_over() -> None:
    wire, websocket = Wire(), asyncio.Protocol()
    transport = CoalescingTransport(wire, asyncio.get_running_loop())
    transport.write(b"before")
    transport.set_protocol(websocket)
    assert wire.calls == [b"before", websocket]


async def test_held_writes_to_a_disconnected_client_are_dropped() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        loop = uvloop.new_event_loop()
        errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        await asyncio.to_thread(loop.run_until_complete, _write_after_abort(ours))
        await asyncio.to_thread(loop.close)
    assert errors == []


async def _write_after_abort(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=connection)
    transport.abort()
    # uvloop closes it in its next turn, and only then does a write raise.
    await asyncio.sleep(0.01)
    held = CoalescingTransport(transport, loop)
    held.write(b"too late")
    await asyncio.sleep(0)
    held.write(b"later still")
    held.close()
