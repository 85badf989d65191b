from __future__ import annotations

import pytest

from instances.scheduling.traffic_report import (
    REPORT_KEY,
    Traffic,
    WebReport,
    is_drained,
    read_reports,
)
from llamactl.core.events import client


def report(web: str = "w", revision: int = 5, **in_flight: int) -> WebReport:
    return WebReport(web_id=web, revision=revision, in_flight=in_flight)


@pytest.mark.parametrize(
    ("reports", "drained"),
    [
        ([], True),
        ([report()], True),
        ([report(other=3)], True),
        ([report(a=1)], False),
        # It may still send one by the older table.
        ([report(revision=4)], False),
        ([report("w1"), report("w2", a=2)], False),
    ],
)
def test_instance_is_drained_once_every_web_process_has_seen_it_and_has_nothing_in_flight(
    reports: list[WebReport], drained: bool
) -> None:
    assert is_drained(reports, "a", 5) is drained


def test_one_waiting_request_with_the_right_may_evict() -> None:
    waiting = {"a": {"1": (1, 0.0)}}
    may = WebReport("w1", 5, waiting=waiting)
    may_not = WebReport("w2", 5, waiting=waiting, not_evicting=["a"])
    idle = WebReport("w3", 5)
    assert Traffic([may_not, may]).may_evict_for("a")
    assert not Traffic([may_not, idle]).may_evict_for("a")
    assert not Traffic([may]).may_evict_for("b")


def test_reports_of_several_web_processes_are_read_back(broker: None) -> None:
    for web in ("one", "two"):
        client().set(REPORT_KEY.format(web_id=web), report(web, a=1).to_json(), ex=5)
    found = sorted(read_reports(client()), key=lambda each: each.web_id)
    assert found == [report("one", a=1), report("two", a=1)]
