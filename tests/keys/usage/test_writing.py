"""Usage in the database: sums, batches that come twice, and what is no longer kept."""

from __future__ import annotations

import pytest
from django.db import connection

from keys.usage import writing
from keys.usage.models import SUMS, RequestRecord, UsageDay, UsageHour, UsageWriter
from keys.usage.recorder import HOUR_SECONDS, MAX_ROWS, Sums
from keys.usage.request_row import RequestRow
from keys.usage.writing import DAY_SECONDS, HOURS_KEPT_SECONDS
from tests.support.request_row import request_row

pytestmark = pytest.mark.django_db
DAY = 1_700_000_000 // DAY_SECONDS * DAY_SECONDS
NOW = DAY + 90_000


def sums(requests: int, seconds: float = 0.5) -> Sums:
    made = Sums()
    made.requests, made.prompt_tokens, made.compute_seconds = requests, 10 * requests, seconds
    return made


def write(number: int, *requests: int, writer: str = "w") -> None:
    hours = {(DAY + at * HOUR_SECONDS, 1, "a"): sums(n) for at, n in enumerate(requests)}
    writing.write(writer, number, hours, unix_now=NOW)


def test_batches_add_up_by_hour_and_by_day() -> None:
    write(1, 1, 2)
    write(2, 10)
    hours = UsageHour.objects.order_by("start").values_list("requests", "prompt_tokens")
    assert list(hours) == [(11, 110), (2, 20)]
    day = UsageDay.objects.get()
    assert (day.start, day.requests, day.compute_seconds) == (DAY, 13, 1.5)


def test_batch_that_is_written_again_counts_once() -> None:
    write(1, 1)
    write(1, 1)
    write(2, 1)
    write(1, 1)
    assert UsageHour.objects.get().requests == 2
    assert UsageWriter.objects.get().batch == 2


def test_batches_of_several_web_processes_add_up() -> None:
    write(1, 1, writer="one")
    write(1, 2, writer="two")
    assert UsageHour.objects.get().requests == 3


def test_batch_takes_one_statement_a_table(django_assert_num_queries: object) -> None:
    hours = {(DAY, key_id, "a"): sums(1) for key_id in range(MAX_ROWS)}
    # The writer's number, two tables, and the two statements of a savepoint in a test.
    with django_assert_num_queries(5):  # type: ignore[operator]
        writing.write("w", 1, hours, unix_now=NOW)
    assert UsageHour.objects.count() == MAX_ROWS
    assert connection.in_atomic_block


def test_hours_are_kept_for_a_month_and_days_as_configured() -> None:
    write(1, 1)
    fields = dict.fromkeys(SUMS, 1)
    old = NOW - HOURS_KEPT_SECONDS - 1
    UsageHour.objects.create(start=old, key_id=2, instance="a", **fields)
    UsageDay.objects.create(start=old, key_id=2, instance="a", **fields)
    writing.remove_expired(unix_now=NOW, retention_days=400)
    assert UsageHour.objects.get().key_id == 1
    assert UsageDay.objects.count() == 2
    writing.remove_expired(unix_now=NOW, retention_days=30)
    assert UsageDay.objects.get().key_id == 1
    writing.remove_expired(unix_now=NOW + 10**8, retention_days=1)
    assert not UsageWriter.objects.exists()


def test_a_row_has_the_columns_of_the_table() -> None:
    columns = [field.column for field in RequestRecord._meta.concrete_fields]
    assert ["id", *RequestRow._fields] == columns


def test_a_record_is_written_with_all_its_values() -> None:
    written = request_row("one")._replace(first_byte_seconds=None, is_estimated=True)
    writing.write("w", 1, {}, [written], unix_now=NOW, kept_records=5)
    found = RequestRecord.objects.values_list(*RequestRow._fields).get()
    assert RequestRow._make(found) == written


def test_last_requests_stay_and_a_repeated_batch_adds_none() -> None:
    for number in (1, 2, 2, 3):
        made = [request_row(f"{number}{letter}") for letter in "abc"]
        writing.write("w", number, {}, made, unix_now=NOW, kept_records=5)
    found = RequestRecord.objects.order_by("pk").values_list("request_id", flat=True)
    assert list(found) == ["2b", "2c", "3a", "3b", "3c"]
