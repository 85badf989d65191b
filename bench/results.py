"""The JSON files of the benchmarks, looked up by load and system."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The figures of several files; where two have the same, the later file wins.

    rows         the summaries: one system under one load each
    wrk          the checks by wrk
    supervisor   the programs started by the supervisor; `idle`: many of them at rest
    profile      where the time of a request goes
    measured_on  the machine, as the first file tells it
    """

    rows: Sequence[Row] = ()
    wrk: Sequence[Row] = ()
    supervisor: Sequence[Row] = ()
    idle: Row | None = None
    profile: Row | None = None
    measured_on: Mapping[str, str] = field(default_factory=dict)

    def of(self, subject: str) -> list[Row]:
        """The summaries of one subject, in the order measured."""
        return [row for row in self.rows if row["subject"] == subject]

    def row(self, subject: str, system: str, clients: int) -> Row | None:
        """One system under one load, if that was measured."""
        for row in self.of(subject):
            if row["system"] == system and row["clients"] == clients:
                return row
        return None

    def median(self, subject: str, system: str, clients: int, key: str) -> float:
        """One figure; NaN when it is not there."""
        return median(self.row(subject, system, clients), key)

    def compared(self, subject: str, system: str, clients: int, key: str) -> float:
        """A figure compared with the direct system's; NaN when either is missing."""
        row = self.row(subject, system, clients)
        return float(row["compared with direct"].get(key, math.nan)) if row else math.nan


def median(row: Row | None, key: str) -> float:
    """A figure of a summary; NaN when it is not there."""
    return float(row["medians"].get(key, math.nan)) if row else math.nan


def systems_of(rows: Iterable[Row]) -> list[str]:
    """The systems, in the order measured."""
    return list(dict.fromkeys(row["system"] for row in rows))


def clients_of(rows: Iterable[Row]) -> list[int]:
    """The numbers of clients or streams, ascending."""
    return sorted({row["clients"] for row in rows})


def read(paths: Sequence[Path]) -> Results:
    """Read the files together. Raises OSError, ValueError."""
    rows: dict[tuple[Any, ...], Row] = {}
    found: dict[str, Any] = {}
    for path in paths:
        document = json.loads(path.read_text())
        found.setdefault("measured_on", document.get("measured_on", {}))
        if any(row["subject"] == "servers" for row in document.get("summary", ())):
            # Its streams are compared apart from the proxies' streams.
            for row in document["summary"]:
                if row["subject"] != "servers":
                    row["subject"] = f"servers {row['subject']}"
        for row in document.get("summary", ()):
            key = (row["subject"], row["system"], row["clients"], row["body_bytes"])
            rows[key] = row
        for name in ("wrk", "supervisor", "idle", "profile"):
            if document.get(name):
                found[name] = document[name]
    return Results(rows=list(rows.values()), **found)
