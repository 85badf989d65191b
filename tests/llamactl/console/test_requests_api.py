from __future__ import annotations

from typing import Any

import pytest
import redis
from django.test import Client

from instances.scheduling.traffic_report import WebReport
from instances.scheduling.web_query import WebAnswer, WebAnswers
from keys.issuing import issue
from llamactl.console import requests_api
from tests.support.environment import MANAGEMENT_KEY

ID = "0123456789abcdef" * 2


def running(**changes: Any) -> Any:
    return {
        "id": ID,
        "client_request_id": None,
        "key": "app",
        "key_id": 1,
        "instance": "demo",
        "method": "POST",
        "path": "/v1/chat/completions",
        "phase": "streaming",
        "elapsed_seconds": 1.5,
        "tokens": 3,
        "bytes": 10,
        "client": "192.0.2.7",
        **changes,
    }


def answer(*requests: Any, web_id: str = "one", others: int = 0) -> WebAnswer:
    return {
        "web_id": web_id,
        "requests": list(requests),
        "total": len(requests),
        "others": others,
    }


class WebProcesses:
    """What the web processes answer, and what they were asked."""

    def __init__(self) -> None:
        self.answers = WebAnswers([], 1)
        self.reports: list[WebReport] = []
        self.cancelled: list[str] = []
        self.error: Exception | None = None

    def ask(self, client: object, *, cancel: str = "") -> WebAnswers:
        if self.error is not None:
            raise self.error
        self.cancelled.append(cancel)
        return self.answers

    def read_reports(self, client: object) -> list[WebReport]:
        return self.reports


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> WebProcesses:
    web = WebProcesses()
    monkeypatch.setattr(requests_api, "ask", web.ask)
    monkeypatch.setattr(requests_api, "read_reports", web.read_reports)
    return web


def call(method: str, path: str, key: str = MANAGEMENT_KEY) -> Any:
    return Client().generic(method, path, headers={"Authorization": f"Bearer {key}"})


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", f"/{ID}")])
def test_inference_keys_and_strangers_see_and_cancel_nothing(
    web: WebProcesses, method: str, path: str
) -> None:
    _, plain = issue(name="app", permission_mode="allow_all")
    for key in (plain, "llamactl-revoked", ""):
        assert call(method, f"/api/v1/requests{path}", key).status_code == 401
    assert web.cancelled == []


def test_the_lists_of_all_web_processes_are_one_oldest_first(web: WebProcesses) -> None:
    young, old = running(elapsed_seconds=1.0), running(elapsed_seconds=9.0)
    web.answers = WebAnswers([answer(young), answer(old, web_id="two")], 3)
    found = call("GET", "/api/v1/requests").json()
    assert found == {
        "requests": [old, young],
        "total": 2,
        "web_processes": 3,
        "unanswered": 1,
    }


@pytest.mark.parametrize(
    ("phase", "others", "elsewhere", "says"),
    [
        ("queued", 0, 0, "before it was sent"),
        ("loading", 3, 0, "before it was sent"),
        ("prefill", 0, 0, "batch of the prompt"),
        ("streaming", 0, 0, "frees its slot"),
        ("streaming", 2, 0, "frees its slot"),
        ("prefill", 2, 0, "2 now"),
        ("prefill", 1, 1, "2 now"),
    ],
)
def test_a_cancellation_says_what_becomes_of_the_slot(
    web: WebProcesses, phase: str, others: int, elsewhere: int, says: str
) -> None:
    web.answers = WebAnswers([answer(running(phase=phase), others=others)], 2)
    # It should count its own web process by the answer alone: the report is older.
    web.reports = [
        WebReport("one", 1, in_flight={"demo": 7}),
        WebReport("two", 1, in_flight={"demo": elsewhere, "other": 5}),
    ]
    response = call("DELETE", f"/api/v1/requests/{ID}")
    assert response.status_code == 200
    document = response.json()
    assert web.cancelled == [ID]
    assert (document["id"], document["other_requests"]) == (ID, others + elsewhere)
    assert says in document["details"]


@pytest.mark.parametrize(
    ("path", "status", "error", "names"),
    [
        (f"/{ID}", 404, "request_not_found", ID),
        ("/x", 400, "invalid_parameter", "id must be"),
        (f"/{ID.upper()}", 400, "invalid_parameter", "id must be"),
        (f"/{ID}0", 400, "invalid_parameter", "id must be"),
        (f"/{ID}?force=1", 400, "invalid_parameter", "force"),
        ("/%0a", 400, "invalid_parameter", "id must be"),
    ],
)
def test_an_unknown_id_is_refused_by_name(
    web: WebProcesses, path: str, status: int, error: str, names: str
) -> None:
    web.answers = WebAnswers([answer()], 1)
    response = call("DELETE", f"/api/v1/requests{path}")
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert names in response.json()["details"]


def test_an_id_that_a_silent_web_process_may_have_is_not_unknown(web: WebProcesses) -> None:
    web.answers = WebAnswers([answer()], 2)
    response = call("DELETE", f"/api/v1/requests/{ID}")
    assert (response.status_code, response.json()["error"]) == (503, "web_process_silent")
    assert "1 of 2 did not answer" in response.json()["details"]
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", f"/{ID}")])
def test_without_a_broker_nobody_can_be_asked(web: WebProcesses, method: str, path: str) -> None:
    web.error = redis.ConnectionError("away")
    response = call(method, f"/api/v1/requests{path}")
    assert (response.status_code, response.json()["error"]) == (503, "broker_unavailable")


@pytest.mark.parametrize("path", ["", f"/{ID}"])
def test_other_methods_are_405(web: WebProcesses, path: str) -> None:
    assert call("PUT", f"/api/v1/requests{path}").status_code == 405
