"""Database connections of threads that end, in each way in which threads are made and end."""

from __future__ import annotations

import _thread
import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from llamactl.core import thread_connections
from llamactl.models import Revision
from tests.support.until import until

pytestmark = pytest.mark.django_db(transaction=True)

Work = Callable[[], None]


class Reader:
    """Reads the database, and keeps the driver's connection that served the read."""

    def __init__(self) -> None:
        self.opened: list[sqlite3.Connection] = []

    def read(self) -> None:
        Revision.numbers()
        self.opened.append(connections["default"].connection)

    def read_and_raise(self) -> None:
        self.read()
        raise RuntimeError("the work fails")

    def read_in_a_transaction_without_end(self) -> None:
        transaction.set_autocommit(False)
        self.read()

    def read_inside_atomic(self) -> None:
        transaction.atomic().__enter__()
        self.read()

    def read_twice(self) -> None:
        self.read()
        connections.close_all()
        self.read()


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes < 0
    except sqlite3.ProgrammingError as error:
        return "closed" in str(error)


def in_a_thread(work: Work) -> None:
    def run() -> None:
        with suppress(RuntimeError):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def in_a_thread_of_the_interpreter(work: Work) -> None:
    def run() -> None:
        with suppress(RuntimeError):
            work()

    _thread.start_new_thread(run, ())


def in_a_pool(work: Work) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).exception()


def in_a_pool_that_is_not_waited_for(work: Work) -> None:
    pool = ThreadPoolExecutor(1)
    pool.submit(work).exception()
    pool.shutdown(wait=False)


def in_the_thread_of_a_request(work: Work) -> None:
    async def request() -> None:
        async with ThreadSensitiveContext():
            with suppress(RuntimeError):
                await sync_to_async(work)()

    asyncio.run(request())


def in_the_loops_default_pool(work: Work) -> None:
    async def ask() -> None:
        with suppress(RuntimeError):
            await asyncio.to_thread(work)

    asyncio.run(ask())


def below_async_to_sync(work: Work) -> None:
    async def ask() -> None:
        with suppress(RuntimeError):
            await sync_to_async(work)()

    in_a_thread(lambda: async_to_sync(ask)())


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """The collector would close the connection sooner or later."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    "way",
    [
        in_a_thread,
        in_a_thread_of_the_interpreter,
        in_a_pool,
        in_a_pool_that_is_not_waited_for,
        in_the_thread_of_a_request,
        in_the_loops_default_pool,
        below_async_to_sync,
    ],
)
@pytest.mark.parametrize(
    "work",
    [
        Reader.read,
        Reader.read_and_raise,
        Reader.read_in_a_transaction_without_end,
        Reader.read_inside_atomic,
        Reader.read_twice,
    ],
)
def test_a_thread_that_ends_closes_its_connection(
    way: Callable[[Work], None], work: Callable[[Reader], None]
) -> None:
    reader = Reader()
    way(lambda: work(reader))
    until(lambda: reader.opened and all(map(is_closed, reader.opened)), "closed connections")


def test_the_connection_of_a_thread_that_goes_on_stays_open() -> None:
    reader = Reader()
    reader.read()
    in_a_thread(reader.read)
    assert [is_closed(connection) for connection in reader.opened] == [False, True]


def test_a_forked_child_leaves_the_connections_of_the_parents_threads_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python drops the other threads' values in the child, where their threads do not exist."""
    closed: list[object] = []
    close = thread_connections._close

    def close_and_count(connections: Iterable[BaseDatabaseWrapper]) -> None:
        closed.extend(connections)
        close(connections)

    monkeypatch.setattr(thread_connections, "_close", close_and_count)
    reader, may_end = Reader(), threading.Event()

    def run() -> None:
        reader.read()
        may_end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: reader.opened, "a connection")
    child = os.fork()
    if child == 0:
        os._exit(len(closed))
    may_end.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(closed) == 1
