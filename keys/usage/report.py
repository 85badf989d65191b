"""Reports of usage: sums by key, instance and period, in pages.

Whole days are read from the table of days. Hours are read for a report by hour, and for the parts
of a day at both ends of the time range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from keys.models import InferenceKey
from keys.usage.models import ANONYMOUS_HOLDER, MANAGEMENT_HOLDER, SUMS, UsageDay, UsageHour
from keys.usage.recorder import HOUR_SECONDS
from keys.usage.writing import DAY_SECONDS

PERIODS = {"hour": HOUR_SECONDS, "day": DAY_SECONDS}
GROUPS = ("key", "instance", *PERIODS)
PAGE_ROWS = 10_000
_HOLDERS = {MANAGEMENT_HOLDER: "management", ANONYMOUS_HOLDER: "anonymous"}

Row = dict[str, Any]
Position = tuple[int | str, ...]
"""The group of a row: the values of ``Report.columns``."""


@dataclass(frozen=True)
class Report:
    """The request for a report: times are unix seconds at full hours."""

    groups: frozenset[str]
    """Of ``GROUPS``; empty for the sum of everything."""
    start: int
    end: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a group, in the order of the rows, which is that of the tables' index."""
        columns = []
        if self.groups & PERIODS.keys():
            columns.append("start")
        if "key" in self.groups:
            columns.append("key_id")
        if "instance" in self.groups:
            columns.append("instance")
        return tuple(columns)


def page(
    report: Report, *, after: Position | None = None, limit: int = PAGE_ROWS
) -> tuple[list[Row], Position | None]:
    """Return the rows behind ``after``, and the position of the last one if there are more."""
    columns = report.columns
    source, parameters = _source(report)
    where = ""
    if after is not None:
        where = f" WHERE ({', '.join(columns)}) > ({', '.join(['%s'] * len(columns))})"
        parameters += after
    sums = ", ".join(f"SUM({name})" for name in SUMS)
    group = f" GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""
    selected = ", ".join((*columns, sums))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {selected} FROM ({source}) AS usage{where}{group}"  # noqa: S608 - own names
            f" LIMIT {limit + 1}",
            parameters,
        )
        found = cursor.fetchall()
    rows = found[:limit]
    last = tuple(rows[-1][: len(columns)]) if len(found) > limit else None
    return [_row(columns, values) for values in rows], last


def key_names() -> dict[int, str]:
    """Return the names of the present keys, and of the holders that are no key."""
    return {**dict(InferenceKey.objects.values_list("id", "name")), **_HOLDERS}


def _row(columns: Sequence[str], values: Sequence[Any]) -> Row:
    row: Row = dict(zip(columns, values, strict=False))
    for name, value in zip(SUMS, values[len(columns) :], strict=True):
        # PostgreSQL's sum of integers is a Decimal, and the sum of no rows is null.
        row[name] = round(float(value or 0), 3) if name.endswith("seconds") else int(value or 0)
    return row


def _source(report: Report) -> tuple[str, list[int | str]]:
    """The query for the rows to sum up, and its parameters."""
    days, hours = UsageDay._meta.db_table, UsageHour._meta.db_table
    names = ", ".join(("key_id", "instance", *SUMS))
    in_range = "start >= %s AND start < %s"
    if "hour" in report.groups:
        return f"SELECT start, {names} FROM {hours} WHERE {in_range}", [report.start, report.end]  # noqa: S608
    first = -(-report.start // DAY_SECONDS) * DAY_SECONDS
    last = max(first, report.end // DAY_SECONDS * DAY_SECONDS)
    source = f"SELECT start, {names} FROM {days} WHERE {in_range}"  # noqa: S608
    parameters: list[int | str] = [first, last]
    for begin, end in ((report.start, min(first, report.end)), (last, report.end)):
        if begin < end:
            day = f"start - start %% {DAY_SECONDS} AS start"
            source += f" UNION ALL SELECT {day}, {names} FROM {hours} WHERE {in_range}"  # noqa: S608
            parameters += (begin, end)
    return source, parameters
