"""How the figures are told: a table to read, a JSON file to compute with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.summary import CORE_KEYS, PROXY_COST_KEY, Summary, direct_of, doubts

RESULTS = Path(__file__).resolve().parent / "results"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned text; the first column to the left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def scenario_report(summaries: Sequence[Summary]) -> str:
    """The title, the figures and the CPU time of all systems under one load."""
    scenario = summaries[0].scenario
    direct = direct_of(summaries)
    figures = [["", *(column.heading for column in scenario.columns), "spread"]]
    unit = "request" if scenario.mode == "requests" else "event"
    rounds = f", {len(summaries[0].runs)} x" if len(summaries[0].runs) != 1 else ""
    groups = (key.removesuffix("_cores") for key in CORE_KEYS)
    cores = [["cores busy", *groups, f"proxy CPU us/{unit}"]]
    doubtful = []
    for summary in summaries:
        row = [summary.system]
        for column in scenario.columns:
            cell = _number(summary.median(column.key), column.digits)
            compared = summary.compared(column, direct)
            if not math.isnan(compared):
                cell += (
                    f" ({compared:.1%})"
                    if column.compared == "x"
                    else f" ({compared:+.{column.digits}f})"
                )
            row.append(cell)
        figures.append([*row, f"{summary.spread:.0%}"])
        busy = (_number(summary.median(key), 2) for key in CORE_KEYS)
        cores.append([summary.system, *busy, _number(summary.median(PROXY_COST_KEY), 1)])
        doubtful += [f"! {summary.system}: {doubt}" for doubt in doubts(summary, direct)]
    return "\n".join([f"== {scenario.title}{rounds}", table(figures), "", table(cores), *doubtful])


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def facts(description: Mapping[str, str]) -> str:
    """The machine and the settings, one a line."""
    width = max(map(len, description), default=0) + 2
    return "\n".join(f"{name + ':':<{width}}{value}" for name, value in description.items())


def write_json(document: Mapping[str, object], path: Path | None = None) -> Path:
    """Save the measurement with its time, and return the file."""
    now = datetime.now(UTC)
    if path is None:
        path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    stamped = {"finished_at": now.isoformat(timespec="seconds"), **document}
    path.write_text(json.dumps(stamped, indent=1) + "\n")
    return path
