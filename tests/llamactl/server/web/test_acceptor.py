"""The accept loop of a listening socket, on the event loop of the web process."""

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


class Connection(asyncio.Protocol):
    """An established connection, which greets its client."""

    def __init__(self, listening: Listening) -> None:
        self.listening = listening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.listening.connections.append(self)
        self.transport.write(b"welcome")


class Listening:
    """A listening socket, its clients, and the connections that are established."""

    def __init__(self, clients: ExitStack) -> None:
        self._clients = clients
        self.listener = clients.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        self.connections: list[Connection] = []

    def acceptor(self, max_accepts: int = 100) -> Acceptor:
        return Acceptor(self.listener, lambda: Connection(self), max_accepts=max_accepts)

    def connect(self, times: int = 1) -> list[socket.socket]:
        """Connect clients, which are in the queue of the socket when this returns."""
        address = self.listener.getsockname()
        connect = socket.create_connection
        return [self._clients.enter_context(connect(address, timeout=20)) for _ in range(times)]


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    with ExitStack() as clients:
        yield (listening := Listening(clients))
        for connection in listening.connections:
            connection.transport.abort()
        await asyncio.sleep(0.01)


async def test_an_accepted_connection_has_no_delay_of_small_packets(listening: Listening) -> None:
    acceptor_ = listening.acceptor()
    (client,) = listening.connect()
    await until_async(lambda: bool(listening.connections), "accepted")
    assert await asyncio.to_thread(client.recv, 100) == b"welcome"
    inside = listening.connections[0].transport.get_extra_info("socket")
    assert inside.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert listening.connections[0].transport.get_extra_info("peername") == client.getsockname()
    acceptor_.close()


async def test_waiting_connections_are_accepted_in_one_turn_up_to_the_maximum(
    listening: Listening,
) -> None:
    listening.connect(25)
    taken: list[int] = []
    acceptor_ = listening.acceptor(max_accepts=10)
    connect = acceptor_._connect

    async def counted(client: socket.socket) -> None:
        taken[-1] += 1
        await connect(client)

    acceptor_._connect = counted  # type: ignore[method-assign]
    for _ in range(3):
        taken.append(0)
        acceptor_._accept()
        await asyncio.sleep(0)
    assert sum(taken) == 25
    assert max(taken) <= 2 * 10  # this call, and the loop's own in the same turn
    await until_async(lambda: len(listening.connections) == 25, "all accepted")
    acceptor_.close()


async def test_a_closed_acceptor_accepts_nothing_and_keeps_its_connections(
    listening: Listening,
) -> None:
    acceptor_ = listening.acceptor()
    listening.connect()
    await until_async(lambda: bool(listening.connections), "accepted")
    acceptor_.close()
    await acceptor_.wait_closed()
    listening.connect()
    await asyncio.sleep(0.1)
    assert len(listening.connections) == 1
    assert not listening.connections[0].transport.is_closing()


async def test_two_acceptors_share_one_queue(listening: Listening) -> None:
    with listening.listener.dup() as other:
        acceptors = [
            listening.acceptor(max_accepts=2),
            Acceptor(other, lambda: Connection(listening), max_accepts=2),
        ]
        listening.connect(20)
        await until_async(lambda: len(listening.connections) == 20, "all accepted")
        for acceptor_ in acceptors:
            acceptor_.close()


class Failing:
    """A listener whose first accepts fail with these errors."""

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
async def test_connections_wait_while_accepts_fail(
    listening: Listening,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    acceptor_ = listening.acceptor()
    acceptor_._listener = Failing(listening.listener, number, number)  # type: ignore[assignment]
    listening.connect(3)
    await until_async(lambda: len(listening.connections) == 3, "accepted")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert os.strerror(number) in lines[0]
    assert ("ulimit" in lines[0]) == (number == errno.EMFILE)
    acceptor_.close()


async def test_an_acceptor_closed_during_a_pause_stays_closed(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    acceptor_ = listening.acceptor()
    acceptor_._listener = Failing(listening.listener, errno.EMFILE)  # type: ignore[assignment]
    listening.connect()
    await until_async(lambda: acceptor_._pause is not None, "paused")
    acceptor_.close()
    await asyncio.sleep(0.1)
    assert not listening.connections


async def test_an_aborted_connection_does_not_stop_the_accept_loop(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    first, second, third = listening.connect(3)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    second.close()
    acceptor_ = listening.acceptor()
    acceptor_._listener = Failing(listening.listener, errno.ECONNABORTED)  # type: ignore[assignment]
    for client in (first, third):
        assert await asyncio.to_thread(client.recv, 100) == b"welcome"
    assert not caplog.records
    acceptor_.close()
