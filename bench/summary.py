"""The summary of many rounds: medians, spread, comparison, and reasons for doubt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.runs import Run
from bench.scenarios import Column, Scenario
from bench.systems import DIRECT

CORE_KEYS = (
    "generator_cores",
    "backend_cores",
    "proxy_cores",
    "rest_cores",
    "elsewhere_cores",
    "stolen_cores",
)
PROXY_COST_KEY = "proxy_cpu_us_each"
LEAST_HEADROOM = 3.0
BUSY_GENERATOR_CORES = 0.8
BUSY_ELSEWHERE_CORES = 0.15
WIDE_SPREAD = 0.25


@dataclass(frozen=True)
class Summary:
    """All rounds of one system under one load."""

    scenario: Scenario
    system: str
    runs: tuple[Run, ...]

    def median(self, key: str) -> float:
        """The median of a figure over the rounds; NaN when it is not there."""
        values = [v for run in self.runs if not math.isnan(v := run.number(key))]
        return median(values) if values else math.nan

    @property
    def rate(self) -> float:
        """Requests or events per second, or the first figure."""
        return self.median(self.scenario.columns[0].key)

    @property
    def spread(self) -> float:
        """(highest - lowest) / median of that over the rounds."""
        values = [run.number(self.scenario.columns[0].key) for run in self.runs]
        return (max(values) - min(values)) / self.rate if self.rate else math.inf

    @property
    def failures(self) -> dict[str, int]:
        """The failures of all rounds."""
        total: dict[str, int] = {}
        for run in self.runs:
            for what, count in run.failures.items():
                total[what] = total.get(what, 0) + count
        return total

    def compared(self, column: Column, direct: Summary | None) -> float:
        """The figure's ratio or difference to the direct system's; NaN without one."""
        if direct is None or direct is self:
            return math.nan
        ours, theirs = self.median(column.key), direct.median(column.key)
        if column.compared == "x":
            return ours / theirs if theirs else math.nan
        if column.compared == "+":
            return ours - theirs
        return math.nan

    def to_document(self, direct: Summary | None) -> dict[str, object]:
        """For the JSON file: every median, and its comparison with the direct system."""
        columns = self.scenario.columns
        keys = dict.fromkeys(
            key
            for run in self.runs
            for key, value in run.figures.items()
            if not isinstance(value, dict)
        )
        compared = {
            f"{column.key} {'ratio' if column.compared == 'x' else 'added'}": value
            for column in columns
            if not math.isnan(value := self.compared(column, direct))
        }
        return {
            "subject": self.scenario.subject,
            "scenario": self.scenario.title,
            "mode": self.scenario.mode,
            "clients": self.scenario.clients,
            "body_bytes": self.scenario.body_bytes,
            "tps": self.scenario.tps,
            "system": self.system,
            "rounds": len(self.runs),
            "medians": {k: v for k in keys if not math.isnan(v := self.median(k))},
            "compared with direct": compared,
            "spread": self.spread,
            "failures": self.failures,
            "doubts": doubts(self, direct),
        }


def summarise(runs: Iterable[Run]) -> list[list[Summary]]:
    """For each load, in the order of the runs: one summary a system."""
    grouped: dict[Scenario, dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault(run.scenario, {}).setdefault(run.system, []).append(run)
    return [
        [Summary(scenario, system, tuple(found)) for system, found in systems.items()]
        for scenario, systems in grouped.items()
    ]


def direct_of(summaries: Sequence[Summary]) -> Summary | None:
    """The one that the others are compared with, if it was measured."""
    return next((summary for summary in summaries if summary.system == DIRECT), None)


def to_documents(scenarios: Sequence[Sequence[Summary]]) -> list[dict[str, object]]:
    """All summaries, for the JSON file."""
    return [
        summary.to_document(direct_of(summaries))
        for summaries in scenarios
        for summary in summaries
    ]


def doubts(summary: Summary, direct: Summary | None) -> list[str]:
    """Reasons to doubt the figures; empty when there are none."""
    found = [f"{count} x {what}" for what, count in summary.failures.items()]
    if math.isnan(summary.rate) or summary.rate == 0:
        return [*found, "nothing was answered"]
    if len(summary.runs) > 1 and summary.spread > WIDE_SPREAD:
        found.append(f"rounds differ by {summary.spread:.0%}")
    if (elsewhere := summary.median("elsewhere_cores")) > BUSY_ELSEWHERE_CORES:
        found.append(f"other programs used {elsewhere:.2f} cores")
    if (stolen := summary.median("stolen_cores")) > BUSY_ELSEWHERE_CORES:
        found.append(f"the host took {stolen:.2f} cores away")
    if direct is None or direct is summary:
        return found
    if (busy := summary.median("generator_cores")) > BUSY_GENERATOR_CORES:
        found.append(f"the load generator itself used {busy:.2f} cores")
    # One client waits for one answer: there the direct rate is the time of a round trip, not a
    # ceiling. Streams come at the backend's pace, so their rates are meant to be equal.
    is_throughput = summary.scenario.is_closed_loop and summary.scenario.clients > 1
    if is_throughput and direct.rate < LEAST_HEADROOM * summary.rate:
        found.append(f"direct is just {direct.rate / summary.rate:.1f} times as fast")
    return found
