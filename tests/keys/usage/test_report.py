"""The report of usage over the API: groups, time ranges, pages, CSV, and wrong parameters."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest
from django.test import Client

from keys.api import usage
from keys.issuing import issue
from keys.usage import writing
from keys.usage.models import ANONYMOUS_HOLDER, MANAGEMENT_HOLDER, SUMS, UsageDay
from keys.usage.recorder import HOUR_SECONDS, Place, Sums
from keys.usage.writing import DAY_SECONDS

pytestmark = pytest.mark.django_db
USAGE = "/api/v1/usage"
TODAY = int(time.time()) // DAY_SECONDS * DAY_SECONDS
YESTERDAY = TODAY - DAY_SECONDS


def sums(requests: int) -> Sums:
    made = Sums()
    made.requests, made.prompt_tokens, made.waiting_seconds = requests, 10 * requests, 0.25
    return made


def write(counts: dict[Place, int]) -> None:
    made = {place: sums(requests) for place, requests in counts.items()}
    writing.write("w", 1, made, unix_now=time.time())


@pytest.fixture
def key_id() -> int:
    """Requests of four holders over two days."""
    key, _ = issue(name="app", permission_mode="allow_all")
    write(
        {
            (YESTERDAY, key.pk, "a"): 1,
            (YESTERDAY + 5 * HOUR_SECONDS, key.pk, "a"): 2,
            (YESTERDAY + 5 * HOUR_SECONDS, key.pk, "b"): 4,
            (TODAY, key.pk, "a"): 8,
            (TODAY, MANAGEMENT_HOLDER, "a"): 16,
            (TODAY, ANONYMOUS_HOLDER, "b"): 32,
            (TODAY, 10**6, "b"): 64,
        }
    )
    return key.pk


def rows(api: Client, query: str, *names: str) -> list[tuple[Any, ...]]:
    response = api.get(f"{USAGE}?{query}")
    assert response.status_code == 200, response.content
    return [tuple(row[name] for name in (*names, "requests")) for row in response.json()["rows"]]


def test_sum_of_each_key_names_its_holder(api: Client, key_id: int) -> None:
    found = rows(api, "", "key", "key_id")
    assert found == [
        ("anonymous", None, 32),
        ("management", None, 16),
        ("app", key_id, 15),
        (None, 10**6, 64),
    ]


def test_groups_may_be_combined_and_left_out(api: Client, key_id: int) -> None:
    assert rows(api, "group_by=instance", "instance") == [("a", 27), ("b", 100)]
    assert rows(api, "group_by=") == [(127,)]
    assert rows(api, "group_by=day", "start") == [(YESTERDAY, 7), (TODAY, 120)]
    by_all = rows(api, "group_by=day,instance,key", "start", "key", "instance")
    assert by_all[:2] == [(YESTERDAY, "app", "a", 3), (YESTERDAY, "app", "b", 4)]
    assert rows(api, "group_by=hour", "start")[:2] == [
        (YESTERDAY, 1),
        (YESTERDAY + 5 * HOUR_SECONDS, 6),
    ]


def test_all_sums_are_shown(api: Client, key_id: int) -> None:
    [row] = api.get(f"{USAGE}?group_by=").json()["rows"]
    assert set(row) == set(SUMS)
    assert (row["prompt_tokens"], row["waiting_seconds"], row["errors"]) == (1270, 1.75, 0)


def test_range_within_days_reads_hours_at_its_ends(api: Client, key_id: int) -> None:
    start, end = YESTERDAY + HOUR_SECONDS, TODAY + HOUR_SECONDS
    assert rows(api, f"group_by=day&from={start}&to={end}", "start") == [
        (YESTERDAY, 6),
        (TODAY, 120),
    ]
    # Within one day.
    end = YESTERDAY + 2 * HOUR_SECONDS
    assert rows(api, f"group_by=&from={YESTERDAY}&to={end}") == [(1,)]
    assert rows(api, f"group_by=&from={start}&to={end}") == [(0,)]
    assert rows(api, f"group_by=key&from={start}&to={end}") == []


def test_range_is_widened_to_full_hours_and_dates_are_read_as_utc(api: Client) -> None:
    body = api.get(f"{USAGE}?from={YESTERDAY + 1}&to={YESTERDAY + 2}").json()
    assert (body["from"], body["to"]) == (YESTERDAY, YESTERDAY + HOUR_SECONDS)
    day = time.strftime("%Y-%m-%d", time.gmtime(YESTERDAY))
    body = api.get(f"{USAGE}?from={day}&to={day}T12:00:00Z").json()
    assert (body["from"], body["to"]) == (YESTERDAY, YESTERDAY + 12 * HOUR_SECONDS)
    # Hours of the year 2020 are no longer kept.
    body = api.get(f"{USAGE}?from=2020-01-01T05:00:00Z&to=2020-01-02T05:00:00Z").json()
    assert (body["from"] % DAY_SECONDS, body["to"] % DAY_SECONDS) == (0, 0)


def test_days_outlive_their_hours(api: Client) -> None:
    old = TODAY - 200 * DAY_SECONDS
    UsageDay.objects.create(start=old, key_id=1, instance="a", **dict.fromkeys(SUMS, 3))
    assert rows(api, f"group_by=day&from={old + 5000}", "start") == [(old, 3)]
    assert rows(api, "group_by=day", "start") == []


def test_pages_follow_each_other_without_gap_or_repetition(api: Client, key_id: int) -> None:
    query = "group_by=key,instance,day"
    whole = rows(api, query, "start", "key", "instance")
    columns = ("start", "key", "instance", "requests")
    found, after = [], ""
    while True:
        body = api.get(f"{USAGE}?{query}&limit=2&after={after}").json()
        found += [tuple(row[name] for name in columns) for row in body["rows"]]
        if body["next"] is None:
            break
        after = body["next"]
    assert len(whole) == 6
    assert found == whole


@pytest.mark.parametrize(
    "query",
    [
        "group_by=user",
        "group_by=key;drop",
        "group_by=hour,day",
        "from=yesterday",
        "from=-1",
        "to=99999999999999999999",
        "from=10&to=5",
        "to=%00",
        "from=٣",
        "limit=0",
        "limit=10001",
        "limit=x",
        "format=xml",
        "after=x",
        "after=W10",
        "after=bnVsbA",
        "after=WyJhIl0",
        "after=WzFlMzA5XQ",
        "group=key",
        "from=1&from=2",
        "group_by=instance&after=WyJcdTAwMDAiXQ",
    ],
)
def test_wrong_parameter_is_refused_by_its_name(api: Client, query: str) -> None:
    response = api.get(f"{USAGE}?{query}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")
    name = query.split("&")[-1].partition("=")[0]
    assert name in response.json()["details"]


def test_report_needs_a_management_key(client: Client) -> None:
    _, plain = issue(name="app", permission_mode="allow_all")
    assert client.get(USAGE).status_code == 401
    assert client.get(USAGE, headers={"authorization": f"Bearer {plain}"}).status_code == 401


def test_csv_under_wsgi(api: Client, key_id: int) -> None:
    response: Any = api.get(f"{USAGE}?format=csv&group_by=instance")
    lines = b"".join(response.streaming_content).splitlines()
    assert lines[0].startswith(b"instance,requests,")
    assert [line[:4] for line in lines[1:]] == [b"a,27", b"b,10"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("piece_rows", [2, 1000])
async def test_csv_has_the_rows_of_the_json(
    api: Client, key_id: int, monkeypatch: pytest.MonkeyPatch, piece_rows: int, async_client: Any
) -> None:
    monkeypatch.setattr(usage, "PIECE_ROWS", piece_rows)
    response = await async_client.get(
        f"{USAGE}?format=csv&group_by=key,instance,day",
        headers={"authorization": api.defaults["HTTP_AUTHORIZATION"]},
    )
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    text = b"".join([piece async for piece in response.streaming_content]).decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["key"] for row in found] == ["app", "app", "anonymous", "management", "app", ""]
    assert [row["requests"] for row in found] == ["3", "4", "32", "16", "8", "64"]
