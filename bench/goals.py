"""The goals, with the measured figure for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.matrix import DISCONNECT_CLIENTS, LITELLM, MANY_INSTANCES, MANY_KEYS
from bench.results import Results, Row, median

OURS = "llamactl"
NO_SLOPE = 0.95
"""Rounds differ by a few percent; a cost that grows with the number of rows would be far below."""


@dataclass(frozen=True)
class Goal:
    """One goal; `measured` is NaN where the results lack it."""

    text: str
    wanted: str
    measured: float
    is_met: bool
    digits: int = 0
    unit: str = ""

    @property
    def told(self) -> str:
        """The measured figure, to read."""
        if math.isnan(self.measured):
            return "not measured"
        return f"{self.measured:,.{self.digits}f}{self.unit}"


def _least(text: str, measured: float, least: float, digits: int = 0, unit: str = "") -> Goal:
    wanted = f"≥ {least:,.{digits}f}{unit}"
    return Goal(text, wanted, measured, measured >= least, digits, unit)


def _most(text: str, measured: float, most: float, digits: int = 0, unit: str = "") -> Goal:
    wanted = f"≤ {most:,.{digits}f}{unit}" if most else "0"
    return Goal(text, wanted, measured, measured <= most, digits, unit)


def goals(results: Results) -> list[Goal]:
    """All goals, for one web process, in the order of the page."""
    return [
        *_request_goals(results),
        *_stream_goals(results),
        *_disconnect_goals(results),
        *_database_goals(results),
        *_supervisor_goals(results),
    ]


def _request_goals(results: Results) -> list[Goal]:
    rate = _rate(results, OURS)
    added = results.compared("requests", OURS, 1, "latency_p50_ms added")
    return [
        _least("requests/s at 64 clients, key and routing on", rate, 6500),
        _least("the same, as a part of nginx", rate / _rate(results, "nginx"), 0.33, 2),
        _least("the same, over LiteLLM's", rate / _rate(results, LITELLM), 50, 0, " x"),
        _most("added to a request of one client (median)", added, 0.4, 2, " ms"),
    ]


def _stream_goals(results: Results) -> list[Goal]:
    arrived = results.compared("streams", OURS, 200, "events_per_second ratio") * 100
    added = results.compared("streams", OURS, 200, "latency_p50_ms added")
    failures = _failures(results.row("held", OURS, 5000))
    memory = results.median("held", OURS, 5000, "proxy_kib_each") * 1.024
    probe = results.median("held", OURS, 5000, "probe_p99_ms")
    return [
        _least("200 streams x 100 tokens/s: events that arrive, of direct", arrived, 97, 1, " %"),
        _most("the same: added to the first event (median)", added, 15, 1, " ms"),
        _most("5,000 open streams x 2 tokens/s: errors", failures, 0),
        _most("the same: memory of a stream", memory, 60, 0, " kB"),
        _most("the same: a new request beside them (p99)", probe, 50, 0, " ms"),
    ]


def _disconnect_goals(results: Results) -> list[Goal]:
    row = results.row("disconnects", OURS, DISCONNECT_CLIENTS)
    text = f"{DISCONNECT_CLIENTS:,} clients disconnect at once: all slots free within"
    return [
        _most(text, median(row, "gone_last_ms"), 1000, 0, " ms"),
        _most("the same: errors", _failures(row), 0),
    ]


def _database_goals(results: Results) -> list[Goal]:
    names = (f"{MANY_KEYS:,} keys", f"{MANY_INSTANCES:,} instances")
    return [
        _least(f"requests/s with {name}, of those with one", _slope(results, name), NO_SLOPE, 2)
        for name in names
    ]


def _supervisor_goals(results: Results) -> list[Goal]:
    start = min((each["added_p50_ms"] for each in results.supervisor[:1]), default=math.nan)
    idle = results.idle["worker_cores"] if results.idle else math.nan
    return [
        _most("added to the start of a backend (median)", start, 150, 0, " ms"),
        _most("the worker beside 100 idle instances, of a core", idle * 100, 1, 2, " %"),
    ]


def _failures(row: Row | None) -> float:
    return float(sum(row["failures"].values())) if row else math.nan


def _rate(results: Results, system: str) -> float:
    return results.median("requests", system, 64, "requests_per_second")


def _slope(results: Results, system: str) -> float:
    rates = [results.median("database", name, 64, "requests_per_second") for name in (system, OURS)]
    return rates[0] / rates[1]
