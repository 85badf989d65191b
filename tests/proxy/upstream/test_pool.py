from __future__ import annotations

import asyncio
import errno
from typing import cast

import pytest

from proxy.errors import TooManyOpenFiles
from proxy.upstream import pool as pools
from proxy.upstream.pool import Pool
from tests.proxy.upstream.conftest import Asker
from tests.support.until import until_async
from tests.support.wire import RawBackend


async def test_connection_that_was_used_last_is_taken_first(
    asker: Asker, backend: RawBackend
) -> None:
    pool = Pool(backend.origin, asyncio.get_running_loop())
    first, second = [await pool.connect(pool.give_back) for _ in range(2)]
    pool.give_back(first)
    pool.give_back(second)
    assert len(pool) == 2
    assert pool.take() is second
    assert pool.take() is first
    assert pool.take() is None
    first.close()
    second.close()


async def test_old_connection_is_closed_by_us_before_the_backend_does(
    asker: Asker, backend: RawBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "KEEP_ALIVE_SECONDS", 0.0)
    for _ in range(2):
        await asker.body()
        await asyncio.sleep(0.01)
    assert backend.connections == 2


async def test_idle_connections_are_closed_without_a_request(
    asker: Asker, backend: RawBackend
) -> None:
    pool = Pool(backend.origin, asyncio.get_running_loop())
    for _ in range(3):
        pool.give_back(await pool.connect(pool.give_back))
    pool.close_idle(before=0.0)
    assert len(pool) == 3
    pool.close_idle(before=float("inf"))
    assert len(pool) == 0
    await until_async(lambda: backend.closed == 3, "all closed")


async def test_connection_that_the_backend_closed_is_not_taken(
    asker: Asker, backend: RawBackend
) -> None:
    pool = Pool(backend.origin, asyncio.get_running_loop())
    connection = await pool.connect(pool.give_back)
    pool.give_back(connection)
    await backend.stop()
    await until_async(lambda: not connection.is_free, "the end noticed")
    assert pool.take() is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [("http://127.0.0.1:8000", b"127.0.0.1:8000"), ("http://[::1]:8000", b"[::1]:8000")],
)
async def test_backend_is_called_by_its_address(origin: str, host: bytes) -> None:
    assert Pool(origin, asyncio.get_running_loop()).host == host


class FullLoop:
    """An event loop of a process that may open no more files."""

    async def create_connection(self, *_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")


async def test_our_own_lack_of_files_is_not_told_as_the_backends_fault() -> None:
    pool = Pool("http://127.0.0.1:1", cast(asyncio.AbstractEventLoop, FullLoop()))
    with pytest.raises(TooManyOpenFiles, match="ulimit") as refused:
        await pool.connect(pool.give_back)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
