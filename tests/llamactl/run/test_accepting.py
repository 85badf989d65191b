"""Many who come at once are let in at once."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from llamactl.run.web import ACCEPTS_IN_A_TURN, multiplied

TURNS = 3
CLIENTS = ACCEPTS_IN_A_TURN


async def accepted_by(listeners: list[socket.socket]) -> int:
    """How many of those that wait already are let in within a few turns of the loop."""
    accepted: list[asyncio.BaseTransport] = []

    class Counted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    loop = asyncio.get_running_loop()
    address = listeners[0].getsockname()
    waiting = [socket.create_connection(address) for _ in range(CLIENTS)]
    servers = [await loop.create_server(Counted, sock=each) for each in listeners]
    for _ in range(TURNS):
        await asyncio.sleep(0)
    found = len(accepted)
    for server in servers:
        server.close()
    for transport in accepted:
        transport.close()
    for each in waiting:
        each.close()
    return found


def test_many_who_wait_are_let_in_within_a_few_turns_of_the_loop() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    # What libuv does by itself; should it take more one day, there is nothing to multiply.
    assert uvloop.run(accepted_by([listener])) <= TURNS
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    assert uvloop.run(accepted_by(multiplied([listener], ACCEPTS_IN_A_TURN))) == CLIENTS
