"""Runs the load generator against the systems, in turn, and takes CPU samples around it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from bench.load import Figures
from bench.plan import LoadPlan
from bench.processes import await_rest, resident_bytes, sample
from bench.scenarios import Scenario
from bench.systems import System

SETTLE_SECONDS = 2.0
"""After thousands of streams: their connections are closed on each side before the next run."""

REST_SECONDS = 20.0
"""Time for a system to work off its queue before the next system is measured."""

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Run:
    """The figures of one system under one load in one round."""

    scenario: Scenario
    system: str
    round: int
    figures: Figures

    @property
    def failures(self) -> dict[str, int]:
        """The failures, with the count of each."""
        failures = self.figures["failures"]
        assert isinstance(failures, dict)
        return failures

    def number(self, key: str) -> float:
        """A figure; NaN when this run does not have it (no such processes on this machine)."""
        value = self.figures.get(key, float("nan"))
        assert not isinstance(value, dict)
        return value


def run_in_turn(
    scenario: Scenario,
    systems: Sequence[System],
    *,
    rounds: int,
    seconds: float,
    warm_up_seconds: float,
    rate_of: Callable[[str], float],
) -> Iterator[Run]:
    """One load on every system, `rounds` times: A B C, A B C, …, so that drift meets all alike.

    `rate_of` tells how fast a system is with this load in a closed loop, for the open loop.
    """
    for number in range(1, rounds + 1):
        for system in systems:
            plan = scenario.plan(
                system,
                seconds=seconds,
                warm_up_seconds=warm_up_seconds,
                rate=scenario.share * rate_of(system.name) if scenario.share else 0.0,
            )
            yield Run(scenario, system.name, number, measure(plan, system))


def measure(plan: LoadPlan, system: System) -> Figures:
    """One run in a process of its own. Raises RuntimeError when the generator fails."""
    proxy = system.processes.get("proxy", ())
    figures, cores, resident = _run_generator(plan, system)
    known = sum(cores[f"{group}_cores"] for group in system.processes)
    generator_cores = figures["generator_cores"]
    assert isinstance(generator_cores, float)
    cores["elsewhere_cores"] = max(0.0, cores["machine_cores"] - known - generator_cores)
    if plan.mode == "held":
        sleep(SETTLE_SECONDS)
        if proxy:
            cores |= _memory(plan, system.fresh_bytes, resident, resident_bytes(proxy))
    rate = figures.get("requests_per_second", figures.get("events_per_second"))
    if "proxy_cores" in cores and isinstance(rate, float) and rate > 0:
        # The CPU cost of a request or event hardly depends on other load of the machine.
        cores["proxy_cpu_us_each"] = cores["proxy_cores"] / rate * 1e6
    if proxy and not await_rest(proxy, REST_SECONDS):
        print(
            f"bench: {system.name} is still at work {REST_SECONDS:g} s after its load", flush=True
        )
    return {**figures, **cores}


def _run_generator(
    plan: LoadPlan, system: System
) -> tuple[Figures, dict[str, float], Sequence[int]]:
    """Return the generator's figures, and CPU and memory at both edges of the window."""
    proxy = system.processes.get("proxy", ())
    generator = subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert generator.stdin is not None
    assert generator.stdout is not None
    with generator:
        try:
            generator.stdin.write(plan.to_json() + "\n")
            generator.stdin.flush()
            _await_line(generator.stdout.readline(), "open")
            before = sample(system.processes)
            resident = [resident_bytes(proxy)]
            _await_line(generator.stdout.readline(), "closed")
            after = sample(system.processes)
            resident.append(resident_bytes(proxy))
            figures: Figures = json.loads(generator.stdout.readline())
        finally:
            if generator.poll() is None and sys.exc_info()[0] is not None:
                generator.kill()
    return figures, after.cores_since(before), resident


def _memory(plan: LoadPlan, fresh: int, resident: Sequence[int], after: int) -> dict[str, float]:
    during = max(resident)
    return {
        "proxy_mib_before": fresh / 2**20,
        "proxy_mib_during": during / 2**20,
        "proxy_mib_after": after / 2**20,
        "proxy_kib_each": (during - fresh) / 2**10 / plan.clients,
    }


def _await_line(line: str, expected: str) -> None:
    if line.strip() != expected:
        raise RuntimeError(f"the load generator ended before its window was {expected}")
