"""Who is let in at a listening socket, on the loop that the web process runs on."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import cast

import pytest

from llamactl.server.web import acceptor
from llamactl.server.web.acceptor import Acceptor
from tests.support.until import until_async


class Guest(asyncio.Protocol):
    """One who is in; says so."""

    def __init__(self, house: House) -> None:
        self.house = house

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.house.guests.append(self)
        self.transport.write(b"welcome")


class House:
    """A listening socket, its clients, and who of them is in."""

    def __init__(self, clients: ExitStack) -> None:
        self._clients = clients
        self.listener = clients.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        self.guests: list[Guest] = []

    def open(self, most: int = 100) -> Acceptor:
        return Acceptor(self.listener, lambda: Guest(self), most=most)

    def knock(self, times: int = 1) -> list[socket.socket]:
        """So many clients, who are in the queue of the socket when this returns."""
        address = self.listener.getsockname()
        connect = socket.create_connection
        return [self._clients.enter_context(connect(address, timeout=20)) for _ in range(times)]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    with ExitStack() as clients:
        yield (house := House(clients))
        for guest in house.guests:
            guest.transport.abort()
        await asyncio.sleep(0.01)


async def test_who_is_let_in_is_served_without_a_delay_of_small_packets(house: House) -> None:
    door = house.open()
    (client,) = house.knock()
    await until_async(lambda: bool(house.guests), "let in")
    assert await asyncio.to_thread(client.recv, 100) == b"welcome"
    inside = house.guests[0].transport.get_extra_info("socket")
    assert inside.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert house.guests[0].transport.get_extra_info("peername") == client.getsockname()
    door.close()


async def test_all_who_wait_are_let_in_in_one_turn_up_to_the_most(house: House) -> None:
    house.knock(25)
    taken: list[int] = []
    door = house.open(most=10)
    let_in = door._enter

    async def counted(client: socket.socket) -> None:
        taken[-1] += 1
        await let_in(client)

    door._enter = counted  # type: ignore[method-assign]
    for _ in range(3):
        taken.append(0)
        door._let_in()
        await asyncio.sleep(0)
    assert sum(taken) == 25
    assert max(taken) <= 2 * 10  # ours, and the loop's own in the same turn
    await until_async(lambda: len(house.guests) == 25, "all let in")
    door.close()


async def test_closed_door_lets_nobody_in_and_throws_nobody_out(house: House) -> None:
    door = house.open()
    house.knock()
    await until_async(lambda: bool(house.guests), "let in")
    door.close()
    await door.wait_closed()
    house.knock()
    await asyncio.sleep(0.1)
    assert len(house.guests) == 1
    assert not house.guests[0].transport.is_closing()


async def test_two_doors_share_one_queue(house: House) -> None:
    with house.listener.dup() as other:
        doors = [house.open(most=2), Acceptor(other, lambda: Guest(house), most=2)]
        house.knock(20)
        await until_async(lambda: len(house.guests) == 20, "all let in")
        for door in doors:
            door.close()


class Failing:
    """A listener that says an error some times before it works."""

    def __init__(self, listener: socket.socket, *errors: int) -> None:
        self._listener = listener
        self._errors = list(errors)

    def accept(self) -> tuple[socket.socket, object]:
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENETDOWN])
async def test_clients_wait_while_the_system_lets_none_in(
    house: House, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    door = house.open()
    door._listener = Failing(house.listener, number, number)  # type: ignore[assignment]
    house.knock(3)
    await until_async(lambda: len(house.guests) == 3, "let in")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert os.strerror(number) in lines[0]
    assert ("ulimit" in lines[0]) == (number == errno.EMFILE)
    door.close()


async def test_door_that_is_closed_while_it_rests_stays_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    door = house.open()
    door._listener = Failing(house.listener, errno.EMFILE)  # type: ignore[assignment]
    house.knock()
    await until_async(lambda: door._pause is not None, "the rest")
    door.close()
    await asyncio.sleep(0.1)
    assert not house.guests


async def test_who_breaks_off_before_the_turn_keeps_nobody_out(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    first, second, third = house.knock(3)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    second.close()
    door = house.open()
    door._listener = Failing(house.listener, errno.ECONNABORTED)  # type: ignore[assignment]
    for client in (first, third):
        assert await asyncio.to_thread(client.recv, 100) == b"welcome"
    assert not caplog.records
    door.close()
