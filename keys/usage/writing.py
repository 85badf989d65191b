"""Writes of usage to the database: one transaction for a batch, one statement for each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from django.db import connection, models, transaction

from keys.usage.models import SUMS, RequestRecord, UsageDay, UsageHour, UsageWriter
from keys.usage.recorder import HOUR_SECONDS, Place, Sums
from keys.usage.request_row import RequestRow

DAY_SECONDS = 24 * HOUR_SECONDS
HOURS_KEPT_SECONDS = 31 * DAY_SECONDS
WRITERS_KEPT_SECONDS = DAY_SECONDS
"""A web process that has written nothing for a day is gone, or has no batch to repeat."""

_PLACE = ("start", "key_id", "instance")


def write(
    writer: str,
    number: int,
    sums: Mapping[Place, Sums],
    records: Sequence[RequestRow] = (),
    *,
    unix_now: float,
    kept_records: int = 0,
) -> None:
    """Write a batch of a web process; a batch that is in the database already changes nothing.

    ``kept_records``: the number of requests whose records stay. Raises DatabaseError; then the
    batch may be in the database or not.
    """
    with transaction.atomic():
        if not _is_new(writer, number, int(unix_now)):
            return
        _add(UsageHour, sums)
        _add(UsageDay, by_day(sums))
        if records:
            _insert(records)
            newest = RequestRecord.objects.aggregate(newest=models.Max("pk"))["newest"]
            RequestRecord.objects.filter(pk__lte=newest - kept_records).delete()


def remove_expired(*, unix_now: float, retention_days: int) -> None:
    """Delete hours after 31 days, and days after ``retention_days``."""
    now = int(unix_now)
    UsageHour.objects.filter(start__lt=now - HOURS_KEPT_SECONDS).delete()
    UsageDay.objects.filter(start__lt=now - retention_days * DAY_SECONDS).delete()
    UsageWriter.objects.filter(written_at__lt=now - WRITERS_KEPT_SECONDS).delete()


def by_day(sums: Mapping[Place, Sums]) -> dict[Place, Sums]:
    """Sum hours up into the days in UTC that they are part of."""
    days: dict[Place, Sums] = {}
    for (hour, key_id, instance), added in sums.items():
        place = (hour // DAY_SECONDS * DAY_SECONDS, key_id, instance)
        days.setdefault(place, Sums()).add(added)
    return days


def _is_new(writer: str, number: int, now: int) -> bool:
    """Note the number of a batch; False if it, or a later one, was noted before."""
    table = _quoted(UsageWriter._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (id, batch, written_at) VALUES (%s, %s, %s)"  # noqa: S608
            f" ON CONFLICT (id) DO UPDATE SET batch = excluded.batch,"
            f" written_at = excluded.written_at WHERE {table}.batch < excluded.batch",
            [writer, number, now],
        )
        return bool(cursor.rowcount > 0)


def _add(model: type[models.Model], sums: Mapping[Place, Sums]) -> None:
    """Add to the rows of a table in one statement, which both SQLite and PostgreSQL have."""
    if not sums:
        return
    table = _quoted(model._meta.db_table)
    columns = (*_PLACE, *SUMS)
    row = f"({', '.join(['%s'] * len(columns))})"
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in SUMS)
    # In one order: in different orders, two web processes would deadlock on each other's rows.
    values: list[int | float | str] = []
    for place in sorted(sums):
        values += (*place, *sums[place].values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608 - names of our own
            f" VALUES {', '.join([row] * len(sums))}"
            f" ON CONFLICT ({', '.join(_PLACE)}) DO UPDATE SET {added}",
            values,
        )


def _insert(records: Sequence[RequestRow]) -> None:
    """Insert the records in one statement.

    Each statement, and each row of ``executemany``, makes this thread wait for the interpreter's
    lock and take it away from the event loop. ``bulk_create`` holds it for 45 ms of Python for a
    thousand records.
    """
    table = _quoted(RequestRecord._meta.db_table)
    columns = RequestRow._fields
    row = f"({', '.join(['%s'] * len(columns))})"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608 - names of our own
            f" VALUES {', '.join([row] * len(records))}",
            list(chain.from_iterable(records)),
        )


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
