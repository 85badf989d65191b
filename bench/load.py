"""The load generator: ``python -m bench.load`` reads a plan, loads one system, prints figures.

A process of its own, so that its CPU time is measured apart. Standard input is
one line, a `LoadPlan`. Standard output is three lines: ``open`` and ``closed`` at the edges of the
measured window, when the reader takes its CPU samples, and the figures as one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
from collections.abc import Sequence
from time import perf_counter

from bench.clients import Client, PacedClient, RequestClient, StreamClient, Tally
from bench.disconnects import measure_disconnects
from bench.plan import LoadPlan
from bench.quantiles import percentile

Figures = dict[str, float | dict[str, int]]
RECONNECT_SECONDS = 0.05
PROBE_CLIENTS = 4
QUIET_SECONDS = 0.3
"""Pause before the disconnect: the CPU samples at the end of the window are taken by then."""


def cpu_seconds() -> float:
    """CPU time of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Load:
    """One run: connects the clients, opens and closes the window, replaces lost connections."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._tally = Tally()
        self._probe_tally = Tally()
        self._clients: dict[int, Client] = {}
        self._reconnects: set[asyncio.Task[None]] = set()
        self._is_over = False

    async def run(self) -> Figures:
        """Load the system. Raises OSError when it does not accept the first connections."""
        plan = self._plan
        started_at = perf_counter()
        for number in range(plan.clients):
            first_at = started_at + plan.ramp_seconds * number / plan.clients
            if plan.mode == "held":
                # Each connects when it begins, as 5,000 clients do.
                await asyncio.sleep(max(0.0, first_at - perf_counter()))
            await self._connect(number, first_at)
        until_open = started_at + plan.ramp_seconds + plan.warm_up_seconds - perf_counter()
        if plan.probes:
            for index in range(PROBE_CLIENTS):
                first_at = perf_counter() + index / plan.probes
                await self._connect(plan.clients + index, first_at)
        gc.collect()
        gc.freeze()
        gc.disable()
        await asyncio.sleep(max(0.0, until_open))

        print("open", flush=True)
        opened_at, cpu_at_open = perf_counter(), cpu_seconds()
        self._tally.is_open = self._probe_tally.is_open = True
        await asyncio.sleep(plan.seconds)
        self._tally.is_open = self._probe_tally.is_open = False
        seconds = perf_counter() - opened_at
        cpu = cpu_seconds() - cpu_at_open
        print("closed", flush=True)

        figures: Figures = {}
        if plan.mode == "held":
            figures |= await self._end_of_held()
        self._disconnect()
        return self._figures(seconds, cpu) | figures

    async def _end_of_held(self) -> Figures:
        """The number of open streams, and how they ended if the plan asks for that."""
        plan = self._plan
        streams_open = self._streaming()
        departure: dict[str, float] = {}
        if plan.backend_url:
            await asyncio.sleep(QUIET_SECONDS)
            seen = await measure_disconnects(plan.backend_url, self._disconnect)
            streams_open = min(streams_open, seen.open_before)
            departure = seen.figures()
            if seen.unnoticed:
                self._tally.failures["clients whose disconnect was not noticed"] = seen.unnoticed
        if missing := plan.clients - streams_open:
            self._tally.failures["streams that were not open"] = missing
        return {"streams_open": streams_open, **departure}

    def _disconnect(self) -> None:
        self._is_over = True
        for task in self._reconnects:
            task.cancel()
        for client in self._clients.values():
            client.stop()

    async def _connect(self, number: int, first_at: float) -> None:
        host, port = self._plan.address()
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: self._make(number, first_at), host, port)
        self._clients[number] = client

    def _make(self, number: int, first_at: float) -> Client:
        plan = self._plan
        request = plan.request_bytes(number)

        def on_lost(_client: Client) -> None:
            self._replace(number)

        if number >= plan.clients:
            probe = plan.probe_bytes()
            interval = PROBE_CLIENTS / plan.probes
            return PacedClient(probe, self._probe_tally, on_lost, first_at, interval=interval)
        if plan.rate:
            # Spread over one interval, so that the requests are due one by one.
            interval = plan.clients / plan.rate
            first_at += interval * number / plan.clients
            return PacedClient(request, self._tally, on_lost, first_at, interval=interval)
        if plan.mode == "requests":
            return RequestClient(request, self._tally, on_lost, first_at)
        return StreamClient(
            request,
            self._tally,
            on_lost,
            first_at,
            tokens=plan.tokens,
            interval=1 / plan.tps if plan.tps else 0.0,
            is_held=plan.mode == "held",
        )

    def _replace(self, number: int) -> None:
        if self._is_over:
            return

        async def reconnect() -> None:
            while not self._is_over:
                await asyncio.sleep(RECONNECT_SECONDS)
                try:
                    await self._connect(number, perf_counter())
                except OSError:
                    self._tally.fail("connection refused")
                else:
                    return

        task = asyncio.get_running_loop().create_task(reconnect())
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    def _figures(self, seconds: float, cpu: float) -> Figures:
        tally = self._tally
        latencies = sorted(tally.latencies)
        figures: Figures = {
            "seconds": seconds,
            "generator_cores": cpu / seconds,
            "failures": tally.failures | self._probe_tally.failures,
            "latency_p50_ms": percentile(latencies, 50) * 1e3,
            "latency_p99_ms": percentile(latencies, 99) * 1e3,
            "latency_max_ms": percentile(latencies, 100) * 1e3,
        }
        if self._plan.mode == "requests":
            figures["requests"] = len(latencies)
            figures["requests_per_second"] = len(latencies) / seconds
            if self._plan.rate:
                figures["asked_per_second"] = self._plan.rate
                figures["lateness_p50_ms"] = percentile(sorted(tally.lateness), 50) * 1e3
        else:
            delays = sorted(tally.delays)
            figures["streams_started"] = len(latencies)
            figures["events_per_second"] = tally.events / seconds
            figures["events_per_read"] = tally.events / tally.reads if tally.reads else 0.0
            figures["delay_p50_ms"] = percentile(delays, 50) * 1e3
            figures["delay_p99_ms"] = percentile(delays, 99) * 1e3
            figures["slowest_stream_events_per_second"] = (
                least_events(list(self._clients.values())) / seconds
            )
        if self._plan.probes:
            answered = sorted(self._probe_tally.latencies)
            figures["probe_p50_ms"] = percentile(answered, 50) * 1e3
            figures["probe_p99_ms"] = percentile(answered, 99) * 1e3
            figures["probe_max_ms"] = percentile(answered, 100) * 1e3
        return figures

    def _streaming(self) -> int:
        clients = self._clients.values()
        return sum(c.is_streaming for c in clients if isinstance(c, StreamClient))


def least_events(clients: Sequence[Client]) -> int:
    """Events that the worst-served of the stream clients got in the window."""
    return min((c.events_in_window for c in clients if isinstance(c, StreamClient)), default=0)


def main() -> None:
    """Read the plan, run it, print the figures."""
    load = Load(LoadPlan.from_json(sys.stdin.readline()))
    try:
        figures = _run(load)
    except OSError as error:
        sys.exit(f"load generator: {error}")
    print(json.dumps(figures), flush=True)


def _run(load: Load) -> Figures:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(load.run())
    return uvloop.run(load.run())


if __name__ == "__main__":
    main()
