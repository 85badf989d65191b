"""The list of the last requests over the API: filters, pages, JSON lines, wrong parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from keys.api import request_log
from keys.issuing import issue
from keys.usage.models import ANONYMOUS_HOLDER, MANAGEMENT_HOLDER, RequestRecord

pytestmark = pytest.mark.django_db
LOG = "/api/v1/request-log"


def record(request_id: str, **fields: Any) -> None:
    usual: dict[str, Any] = {
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens"), 3),
        **dict.fromkeys(("drafted_tokens", "accepted_tokens"), 0),
        **dict.fromkeys(("request_bytes", "response_bytes"), 10),
        **dict.fromkeys(("queue_seconds", "load_seconds"), 0.0),
        "total_seconds": 1.0,
        "ended_at": 1_700_000_000.1234,
        "is_estimated": False,
        "instance": "a",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "answered",
    }
    RequestRecord.objects.create(request_id=request_id, **{**usual, **fields})


@pytest.fixture
def key_id() -> int:
    key, _ = issue(name="app", permission_mode="allow_all")
    record("1", key_id=key.pk, client_request_id="mine")
    record("2", key_id=key.pk, instance="b", total_seconds=9.5)
    record("3", key_id=MANAGEMENT_HOLDER, status=502, outcome="backend_failed")
    record("4", key_id=ANONYMOUS_HOLDER, outcome="backend_failed")
    record("5", key_id=10**6, status=404, outcome="refused", instance="", first_byte_seconds=0.5)
    return key.pk


def ids(api: Client, query: str = "") -> str:
    response = api.get(f"{LOG}?{query}")
    assert response.status_code == 200, response.content
    return "".join(row["id"] for row in response.json()["rows"])


def test_newest_request_is_first_and_says_whose_it_was(api: Client, key_id: int) -> None:
    rows = api.get(LOG).json()["rows"]
    assert [row["id"] for row in rows] == ["5", "4", "3", "2", "1"]
    assert [row["key"] for row in rows] == [None, "anonymous", "management", "app", "app"]
    assert [row["key_id"] for row in rows] == [10**6, None, None, key_id, key_id]
    assert rows[-1]["client_request_id"] == "mine"
    assert (rows[-1]["ended_at"], rows[-1]["first_byte_seconds"]) == (1_700_000_000.123, None)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("instance=a", "431"),
        ("instance=", "5"),
        ("key=management", "3"),
        ("key=anonymous", "4"),
        ("key=1000000", "5"),
        ("status=404", "5"),
        ("status=0", ""),
        ("slower_than=1", "2"),
        ("slower_than=0.5", "54321"),
        ("errors=true", "543"),
        ("errors=true&instance=a&status=502", "3"),
        ("errors=false", "54321"),
    ],
)
def test_filters(api: Client, key_id: int, query: str, found: str) -> None:
    assert ids(api, query) == found


def test_requests_of_one_key(api: Client, key_id: int) -> None:
    assert ids(api, f"key={key_id}") == "21"


def test_pages_stay_apart_while_requests_come(api: Client, key_id: int) -> None:
    found, after = "", ""
    while after is not None:
        body = api.get(f"{LOG}?limit=2{after and '&after=' + after}").json()
        found += "".join(row["id"] for row in body["rows"])
        after = body["next"]
        record("new", key_id=key_id)
    assert found == "54321"


@pytest.mark.parametrize("piece", [2, 5, 1000])
def test_export_has_a_line_for_each_request(
    api: Client, key_id: int, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(request_log, "MAX_ROWS", piece)
    response: Any = api.get(f"{LOG}?format=jsonl&errors=true&limit=1")
    assert response["Content-Type"] == "application/x-ndjson"
    lines = b"".join(response.streaming_content).decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["5", "4", "3"]


@pytest.mark.parametrize(
    "query",
    [
        "key=app",
        "key=0",
        "key=-1",
        "key=",
        "status=x",
        "status=600",
        "slower_than=nan",
        "slower_than=-1",
        "slower_than=",
        "errors=yes",
        "errors=",
        "format=csv",
        "limit=1001",
        "after=0",
        "after=99999999999999999999",
        "instance=%00",
        "since=1",
        "status=200&status=404",
    ],
)
def test_wrong_parameter_is_refused_by_its_name(api: Client, query: str) -> None:
    response = api.get(f"{LOG}?{query}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")
    assert query.partition("=")[0] in response.json()["details"]


def test_list_needs_a_management_key(client: Client) -> None:
    _, plain = issue(name="app", permission_mode="allow_all")
    assert client.get(LOG, headers={"authorization": f"Bearer {plain}"}).status_code == 401
