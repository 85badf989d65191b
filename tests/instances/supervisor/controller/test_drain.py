from __future__ import annotations

import pytest
import redis

from instances.scheduling.traffic_report import WebReport
from instances.supervisor.controller import drain
from instances.supervisor.controller.drain import InFlight, RemainingTraffic


class Web:
    """The reports of the web processes; ``None`` without a broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reports: list[WebReport] | None = []
        self.has_connections = False
        self.now = 0.0
        monkeypatch.setattr(drain, "read_reports", self._read)
        monkeypatch.setattr(drain, "has_connections", lambda port: self.has_connections)

    def _read(self, client: object) -> list[WebReport]:
        if self.reports is None:
            raise redis.ConnectionError("no broker")
        return self.reports

    def watch(self, revision: int = 5) -> RemainingTraffic:
        return RemainingTraffic("one", 8000, revision, clock=lambda: self.now)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    return Web(monkeypatch)


@pytest.mark.parametrize(
    ("reports", "drained"),
    [
        ([WebReport("a", 5)], True),
        ([WebReport("a", 4)], False),
        ([WebReport("a", 5, {"one": 1})], False),
        ([WebReport("a", 5, {"two": 1})], True),
        ([WebReport("a", 5), WebReport("b", 6, {"one": 2})], False),
    ],
)
def test_the_reports_decide(web: Web, reports: list[WebReport], drained: bool) -> None:
    web.reports = reports
    web.has_connections = True  # kept alive, and idle
    assert (web.watch().read() is InFlight.NOTHING) is drained


@pytest.mark.parametrize(
    ("report", "left"),
    [
        (WebReport("a", 5, {"one": 2}, looking={"one": 1}), InFlight.REQUESTS),
        (WebReport("a", 5, {"one": 1}, looking={"one": 1}), InFlight.STATUS_REQUESTS),
        # It lags behind: it may still begin a request, or hang.
        (WebReport("a", 4), InFlight.STATUS_REQUESTS),
    ],
)
def test_status_requests_are_no_use_of_an_instance(
    web: Web, report: WebReport, left: InFlight
) -> None:
    web.reports = [report]
    assert web.watch().read() is left


@pytest.mark.parametrize("is_open", [True, False])
def test_without_a_report_connections_decide(web: Web, is_open: bool) -> None:
    web.has_connections = is_open
    assert (web.watch().read() is InFlight.REQUESTS) is is_open


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    "last",
    [
        WebReport("b", 5, {"one": 1}),
        # It may have taken a request after this report, and before it fell silent.
        WebReport("b", 4),
    ],
)
def test_a_web_process_that_fell_silent_during_a_request_is_waited_for(
    web: Web, last: WebReport, is_open: bool
) -> None:
    # Killed, its connection is closed; frozen, it goes on reading once it wakes up.
    web.reports = [WebReport("a", 5), last]
    watch = web.watch()
    assert watch.read() is not InFlight.NOTHING
    web.reports = [WebReport("a", 5)]
    web.has_connections = is_open
    assert (watch.read() is InFlight.REQUESTS) is is_open
    assert (watch.read() is InFlight.REQUESTS) is is_open


def test_a_web_process_that_reports_again_counts(web: Web) -> None:
    silent, carrying = [WebReport("a", 5)], [WebReport("a", 5), WebReport("b", 5, {"one": 1})]
    web.has_connections = True  # kept alive, and idle
    watch = web.watch()
    for reports in (carrying, silent, carrying):
        web.reports = reports
        assert watch.read() is InFlight.REQUESTS
    web.reports = [WebReport("a", 5), WebReport("b", 5)]
    assert watch.read() is InFlight.NOTHING


def test_without_a_broker_connections_decide_after_a_while(web: Web) -> None:
    web.reports = None
    watch = web.watch()
    assert watch.read() is InFlight.REQUESTS
    web.now = 1.9
    assert watch.read() is InFlight.REQUESTS
    web.now = 2.0
    assert watch.read() is InFlight.NOTHING
    web.has_connections = True
    assert watch.read() is InFlight.REQUESTS


def test_reports_count_again_once_the_broker_is_back(web: Web) -> None:
    web.reports = None
    watch = web.watch()
    watch.read()
    web.now = 10.0
    web.reports = [WebReport("a", 5, {"one": 1})]
    assert watch.read() is InFlight.REQUESTS
    web.reports = None
    assert watch.read() is InFlight.REQUESTS
