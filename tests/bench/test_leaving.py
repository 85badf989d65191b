"""Clients that leave at once: what the backend says of it, and what becomes of that."""

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
from bench.fake_backend import Connection, Streams
from bench.leaving import Departure, depart
from bench.systems import System, direct_system
from tests.support.paths import ROOT

FEW = 5
SECONDS_BETWEEN_TOKENS = 20
REPOSITORY = ROOT


class Backend:
    """The fake backend in this process, and clients that read its streams."""

    def __init__(self, port: int, streams: Streams) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.streams = streams
        self.clients: list[StreamClient] = []

    async def open_streams(self, number: int) -> None:
        system = System("direct", self.url, (), "fake", backend_url=self.url)
        scenario = matrix.leaving_of(number, tps=1 / SECONDS_BETWEEN_TOKENS)
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
        async with asyncio.timeout(10):
            while not all(client.is_streaming for client in self.clients):
                await asyncio.sleep(0.01)

    def disconnect(self) -> None:
        for client in self.clients:
            client.stop()


def ignore(_client: Client) -> None:
    pass


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    streams = Streams()

    def accept() -> Connection:
        return Connection(alias="fake", tps=100, loaded_at=0, streams=streams)

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    backend = Backend(server.sockets[0].getsockname()[1], streams)
    yield backend
    backend.disconnect()
    server.close()
    await asyncio.sleep(0.05)


async def test_the_backend_says_when_each_client_left(backend: Backend) -> None:
    await backend.open_streams(FEW)
    seen = await depart(backend.url, backend.disconnect)
    assert seen.open_before == FEW
    assert len(seen.gone_after) == FEW
    # It should be noticed when the connection ends, and not at the next token.
    assert 0 < seen.gone_after[0] <= seen.gone_after[-1] < SECONDS_BETWEEN_TOKENS / 2


async def test_a_way_that_ends_late_is_seen_to_end_late(backend: Backend) -> None:
    await backend.open_streams(FEW)

    def hang_up_late() -> None:
        backend.clients[0].stop()
        asyncio.get_running_loop().call_later(2, backend.disconnect)

    seen = await depart(backend.url, hang_up_late)
    assert len(seen.gone_after) == FEW
    assert seen.gone_after[0] < 2 <= seen.gone_after[1]


async def test_who_is_never_seen_to_leave_is_not_forgotten(backend: Backend) -> None:
    await backend.open_streams(FEW)
    stay: Callable[[], None] = backend.clients[0].stop
    seen = await depart(backend.url, stay, notice_seconds=2)
    assert (seen.open_before, len(seen.gone_after), seen.unnoticed) == (FEW, 1, FEW - 1)
    assert seen.figures()["gone_last_ms"] == 10_000


async def test_those_who_left_before_do_not_count(backend: Backend) -> None:
    await backend.open_streams(FEW)
    backend.clients.pop().stop()
    async with asyncio.timeout(10):
        while backend.streams.open == FEW:
            await asyncio.sleep(0.01)
    seen = await depart(backend.url, backend.disconnect)
    assert (seen.open_before, len(seen.gone_after)) == (FEW - 1, FEW - 1)


def test_half_and_all_are_told_in_milliseconds() -> None:
    figures = Departure(4, (0.01, 0.02, 0.03, 0.04)).figures()
    assert figures == {"gone_p50_ms": 20, "gone_last_ms": 40, "streams_unnoticed": 0}


@pytest.mark.parametrize("is_leaving", [True, False])
def test_the_generator_has_all_its_streams_leave(is_leaving: bool) -> None:
    with direct_system(0, model="fake") as system:
        scenario = matrix.leaving_of(FEW)
        plan = scenario.plan(system, seconds=1, warm_up_seconds=0)
        plan = replace(plan, ramp_seconds=1, backend_url=plan.backend_url if is_leaving else "")
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
    assert ("gone_last_ms" in figures) is is_leaving
    if is_leaving:
        assert 0 < figures["gone_p50_ms"] <= figures["gone_last_ms"] < 10_000
