"""Clients that disconnect at once: the backend's account of them, and the figures."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from time import perf_counter

import pytest

from bench import matrix
from bench.clients import Client, StreamClient, Tally
from bench.disconnects import Disconnects, measure_disconnects
from bench.systems import System, direct_system
from tests.support.fake_backend.connection import Backend as FakeBackend
from tests.support.fake_backend.connection import Connection
from tests.support.paths import ROOT
from tests.support.until import until_async

FEW = 5
SECONDS_BETWEEN_TOKENS = 20
REPOSITORY = ROOT


class Accepted(Connection, asyncio.Protocol):  # type: ignore[misc]
    """A connection of the fake backend on asyncio's event loop."""


class Backend:
    """The fake backend in this process, and clients that read its streams."""

    def __init__(self, port: int, counted: FakeBackend) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.counted = counted
        self.clients: list[StreamClient] = []

    async def open_streams(self, number: int) -> None:
        system = System("direct", self.url, (), "fake", backend_url=self.url)
        scenario = matrix.disconnects_of(number, tps=1 / SECONDS_BETWEEN_TOKENS)
        plan = scenario.plan(system, seconds=60, warm_up_seconds=0)
        request = plan.request_bytes(0)
        loop = asyncio.get_running_loop()
        for _ in range(number):
            _, client = await loop.create_connection(
                lambda: StreamClient(
                    request,
                    Tally(),
                    ignore,
                    perf_counter(),
                    tokens=plan.tokens,
                    interval=SECONDS_BETWEEN_TOKENS,
                ),
                "127.0.0.1",
                self.port,
            )
            self.clients.append(client)
        await until_async(lambda: all(client.is_streaming for client in self.clients))

    def disconnect(self) -> None:
        for client in self.clients:
            client.stop()


def ignore(_client: Client) -> None:
    pass


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    counted = FakeBackend()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Accepted(counted, loop), "127.0.0.1", 0)
    backend = Backend(server.sockets[0].getsockname()[1], counted)
    yield backend
    backend.disconnect()
    server.close()
    await asyncio.sleep(0.05)


async def test_the_backend_tells_when_each_client_disconnected(backend: Backend) -> None:
    await backend.open_streams(FEW)
    seen = await measure_disconnects(backend.url, backend.disconnect)
    assert seen.open_before == FEW
    assert len(seen.gone_after) == FEW
    # It should be noticed when the connection ends, and not at the next token.
    assert 0 < seen.gone_after[0] <= seen.gone_after[-1] < SECONDS_BETWEEN_TOKENS / 2


async def test_a_late_disconnect_is_measured_as_late(backend: Backend) -> None:
    await backend.open_streams(FEW)

    def disconnect_late() -> None:
        backend.clients[0].stop()
        asyncio.get_running_loop().call_later(2, backend.disconnect)

    seen = await measure_disconnects(backend.url, disconnect_late)
    assert len(seen.gone_after) == FEW
    assert seen.gone_after[0] < 2 <= seen.gone_after[1]


async def test_a_disconnect_that_is_never_noticed_is_counted(backend: Backend) -> None:
    await backend.open_streams(FEW)
    stay: Callable[[], None] = backend.clients[0].stop
    seen = await measure_disconnects(backend.url, stay, notice_seconds=2)
    assert (seen.open_before, len(seen.gone_after), seen.unnoticed) == (FEW, 1, FEW - 1)
    assert seen.figures()["gone_last_ms"] == 10_000


async def test_earlier_disconnects_do_not_count(backend: Backend) -> None:
    await backend.open_streams(FEW)
    backend.clients.pop().stop()
    await until_async(lambda: backend.counted.streams < FEW)
    seen = await measure_disconnects(backend.url, backend.disconnect)
    assert (seen.open_before, len(seen.gone_after)) == (FEW - 1, FEW - 1)


def test_median_and_last_are_figures_in_milliseconds() -> None:
    figures = Disconnects(4, (0.01, 0.02, 0.03, 0.04)).figures()
    assert figures == {"gone_p50_ms": 20, "gone_last_ms": 40, "streams_unnoticed": 0}


@pytest.mark.parametrize("is_disconnecting", [True, False])
def test_the_generator_disconnects_all_its_streams(is_disconnecting: bool) -> None:
    with direct_system(0, model="fake") as system:
        scenario = matrix.disconnects_of(FEW)
        plan = scenario.plan(system, seconds=1, warm_up_seconds=0)
        plan = replace(
            plan, ramp_seconds=1, backend_url=plan.backend_url if is_disconnecting else ""
        )
        told = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            cwd=REPOSITORY,
            input=plan.to_json() + "\n",
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        ).stdout
    figures = json.loads(told.splitlines()[-1])
    assert figures["failures"] == {}
    assert figures["streams_open"] == FEW
    assert figures["events_per_second"] > 0
    assert ("gone_last_ms" in figures) is is_disconnecting
    if is_disconnecting:
        assert 0 < figures["gone_p50_ms"] <= figures["gone_last_ms"] < 10_000
