"""The cost of watched transports, and their place in an event loop; see also tests/disconnects."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

from llamactl.core.disconnect_event import disconnect_event
from llamactl.server.web.disconnect_watch import WatchedTransport

SECONDS = 20
"""A bound, not an expectation."""


async def test_the_disconnect_event_is_never_set_by_a_server_without_the_extension() -> None:
    assert not disconnect_event({"type": "websocket"}).is_set()
    assert not disconnect_event({"type": "websocket", "extensions": {}}).is_set()


class Wire:
    """A transport that does nothing, and a loop that records its timers."""

    def __init__(self) -> None:
        self.timers: list[tuple[Any, ...]] = []

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def call_later(self, seconds: float, *call: Any) -> None:
        self.timers.append(call)

    def fire(self) -> None:
        ((function, *arguments),) = self.timers
        self.timers.clear()
        function(*arguments)


def test_short_pauses_cost_one_timer_in_all() -> None:
    wire = Wire()
    transport = WatchedTransport(wire, wire)  # type: ignore[arg-type] # a loop for this purpose
    assert not wire.timers
    for _ in range(10):
        transport.pause_reading()
        transport.resume_reading()
    assert len(wire.timers) == 1
    # It should read no connection's state, and schedule no further check.
    wire.fire()
    assert not wire.timers
    transport.pause_reading()
    transport.resume_reading()
    transport.pause_reading()
    wire.fire()
    assert len(wire.timers) == 1


def test_the_state_of_a_uvloop_socket_is_read_too() -> None:
    async def detect() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        listener.close()
        loop, lost = asyncio.get_running_loop(), asyncio.Event()

        class Protocol(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set()

        transport, _ = await loop.create_connection(Protocol, sock=accepted)
        watched = WatchedTransport(transport, loop)
        watched.pause_reading()
        client.close()
        await asyncio.wait_for(lost.wait(), SECONDS)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(detect())
