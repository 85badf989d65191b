"""``python -m bench``: measure the cost of the proxy, print the figures and save them.

Exit status: 0 measured; 1 a process did not start or did not answer; 2 wrong usage; 130 or 143
ended by a signal. All started processes are stopped again in each case.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace

from bench import machine, wrk
from bench.command_line import Options, parse
from bench.matrix import Stage, SystemSpec
from bench.peers import litellm_system, nginx_system, versions
from bench.processes import allow_many_files, resident_bytes
from bench.report import facts, scenario_report, table, write_json
from bench.runs import Run, run_in_turn
from bench.runs import measure as measure_run
from bench.scenarios import Scenario
from bench.signals import end_in_order
from bench.stack import INSTANCE, llamactl_system
from bench.summary import summarise, to_documents
from bench.systems import System, direct_system, running_system

WRK_CLIENTS = 64


def gather(stage: Stage, options: Options, stack: ExitStack) -> list[System]:
    """Start the compared systems, the direct one first; `stack` stops them."""
    direct = stack.enter_context(direct_system(options.backend_port, model=INSTANCE))
    systems = [direct]
    if options.base_url:
        systems.append(
            running_system("given", options.base_url, options.key, options.model, backend=())
        )
    for spec in stage.systems:
        print(f"starting {spec.name} …", flush=True)
        systems.append(stack.enter_context(_start(spec, direct, options)))
    backend = direct.processes["backend"]
    for also in options.also:
        system = running_system(also.name, also.base_url, also.key, also.model, backend)
        systems.append(replace(system, backend_url=direct.backend_url))
    return [
        replace(system, fresh_bytes=resident_bytes(system.processes.get("proxy", ())))
        for system in systems
    ]


def _start(spec: SystemSpec, direct: System, options: Options) -> AbstractContextManager[System]:
    if spec.kind == "nginx":
        return nginx_system(direct)
    if spec.kind == "litellm":
        return litellm_system(direct, options.litellm_venv)
    return llamactl_system(spec.name, spec.settings, keys=spec.keys, instances=spec.instances)


class Measurement:
    """All runs of one call, and their findings so far."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._closed_loop: dict[tuple[str, int], float] = {}
        self.runs: list[Run] = []
        self.checks: list[wrk.Check] = []

    def measure(self, stage: Stage) -> None:
        """One stage, from bringing it up to taking it down; prints each table when it is there."""
        with ExitStack() as stack:
            systems = gather(stage, self._options, stack)
            for scenario in stage.scenarios:
                chosen = [each for each in systems if each.name not in scenario.left_out]
                self._measure_scenario(scenario, chosen)

    def _measure_scenario(self, scenario: Scenario, systems: list[System]) -> None:
        options = self._options
        runs = list(
            run_in_turn(
                scenario,
                systems,
                rounds=scenario.rounds or options.rounds,
                seconds=options.seconds,
                warm_up_seconds=options.warm_up_seconds,
                rate_of=lambda name: self._closed_loop.get((name, scenario.clients), 0.0),
            )
        )
        self.runs += runs
        [summaries] = summarise(runs)
        print(scenario_report(summaries), end="\n\n", flush=True)
        if scenario.subject != "requests":
            return
        for summary in summaries:
            self._closed_loop[summary.system, scenario.clients] = summary.rate
        if options.with_wrk and scenario.clients == WRK_CLIENTS and wrk.is_installed():
            self._check(scenario, systems)

    def _check(self, scenario: Scenario, systems: list[System]) -> None:
        rows = [["wrk instead of our generator", "requests/s", "ours", "p50 ms", "p99 ms", ""]]
        for system in systems:
            check = wrk.check(
                system.name,
                scenario.plan(system, seconds=0, warm_up_seconds=0),
                ours=self._once_more(scenario, system),
                seconds=max(1, round(self._options.seconds)),
            )
            self.checks.append(check)
            numbers = [f"{check.requests_per_second:,.0f}", f"{check.ours:,.0f}"]
            numbers += [f"{check.latency_p50_ms:.2f}", f"{check.latency_p99_ms:.2f}"]
            rows.append([system.name, *numbers, check.failures])
        print(table(rows), end="\n\n", flush=True)

    def _once_more(self, scenario: Scenario, system: System) -> float:
        """Our own figure of the same minute: the machine may be slower than it was before."""
        options = self._options
        plan = scenario.plan(
            system, seconds=options.seconds, warm_up_seconds=options.warm_up_seconds
        )
        rate = measure_run(plan, system)["requests_per_second"]
        assert isinstance(rate, float)
        return rate


def measure(options: Options) -> None:
    """Everything that the options ask for. Raises RuntimeError when a system does not come up."""
    description = machine.describe()
    if peers := versions(options.litellm_venv):
        description["peers"] = peers
    print(facts(description), end="\n\n", flush=True)
    for line in options.left_out:
        print(f"left out: {line}", flush=True)
    measurement = Measurement(options)
    for stage in options.stages:
        measurement.measure(stage)
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s, the systems in turn")
    document = {
        "measured_on": description,
        "summary": to_documents(summarise(measurement.runs)),
        "wrk": [asdict(check) for check in measurement.checks],
        "runs": [asdict(run) for run in measurement.runs],
    }
    print(f"all figures: {write_json(document, options.output)}")


def main() -> int:
    """The program; returns its exit status."""
    options = parse(sys.argv[1:])
    allow_many_files()
    end_in_order()
    try:
        measure(options)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
