"""Idle stops."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import IntegrityError

from instances.scheduling.traffic_report import WebReport
from instances.states import IDLE, DesiredState, Status
from instances.supervisor.scheduling import scheduler, traffic_monitor
from instances.supervisor.state import rows
from tests.instances.supervisor.conftest import NodeUnderTest, children, is_alive
from tests.support.until import until

SEEN_ALL = 10**9
MINUTE = 0.6
"""Length of a minute in these tests."""


@pytest.fixture
def reports(node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch) -> list[WebReport]:
    found = [WebReport("web", SEEN_ALL)]
    for module in ("controller.drain", "scheduling.traffic_monitor"):
        monkeypatch.setattr(
            f"instances.supervisor.{module}.read_reports", lambda client: list(found)
        )
    monkeypatch.setattr(rows, "MINUTE_SECONDS", MINUTE)
    monkeypatch.setattr(scheduler, "IDLE_POLL_SECONDS", 0.05)
    return found


def runs_on(node: NodeUnderTest, seconds: float = 3 * MINUTE) -> None:
    time.sleep(seconds)
    assert node.see().status == Status.RUNNING


def test_an_instance_that_is_never_used_is_stopped_after_its_idle_timeout(
    supervised: NodeUnderTest, reports: list[WebReport]
) -> None:
    supervised.running(idle_timeout=1)
    ready = supervised.see().ready_at
    supervised.reaches(Status.STOPPED)
    instance = supervised.see()
    assert (instance.desired_state, instance.requested_by) == (DesiredState.STOPPED, IDLE)
    change = instance.history.get(new=Status.SHUTTING_DOWN)
    assert (change.cause, change.reason) == ("supervisor:idle", "not used for 1 min")
    assert ready is not None
    assert (change.at - ready).total_seconds() >= MINUTE
    assert not children()


def test_an_idle_stop_does_not_prevent_a_start(
    supervised: NodeUnderTest, reports: list[WebReport]
) -> None:
    supervised.running(idle_timeout=1)
    supervised.reaches(Status.STOPPED)
    supervised.ask_start()
    supervised.reaches(Status.RUNNING)


def test_timeout_0_is_never(supervised: NodeUnderTest, reports: list[WebReport]) -> None:
    supervised.running(idle_timeout=0)
    runs_on(supervised)


@pytest.mark.parametrize(
    "busy",
    [
        WebReport("other", SEEN_ALL, {"one": 1}),
        WebReport("other", SEEN_ALL, waiting={"one": {"k": (1, 0.0)}}),
        # It may send a request by an older table.
        WebReport("other", 0),
    ],
)
def test_a_request_in_any_web_process_prevents_an_idle_stop(
    supervised: NodeUnderTest, reports: list[WebReport], busy: WebReport
) -> None:
    reports.append(busy)
    supervised.running(idle_timeout=1)
    runs_on(supervised)
    reports.remove(busy)
    supervised.reaches(Status.STOPPED)


def test_the_idle_timeout_counts_from_the_end_of_the_last_response(
    supervised: NodeUnderTest, reports: list[WebReport]
) -> None:
    reports[:] = [WebReport("web", SEEN_ALL, {"one": 1})]
    supervised.running(idle_timeout=1)
    runs_on(supervised)
    ended = time.time()
    reports[:] = [WebReport("web", SEEN_ALL, last_used={"one": ended})]
    supervised.reaches(Status.STOPPED)
    change = supervised.see().history.get(new=Status.SHUTTING_DOWN)
    assert change.at.timestamp() - ended >= MINUTE


def test_the_last_use_survives_the_death_of_its_web_process(
    supervised: NodeUnderTest, reports: list[WebReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half of it is for the time since its last report was read.
    monkeypatch.setattr(rows, "MINUTE_SECONDS", minute := 5 * MINUTE)
    reports[:] = [WebReport("web", SEEN_ALL, {"one": 1})]
    supervised.running(idle_timeout=1)
    runs_on(supervised)
    died = time.time()
    reports[:] = []
    supervised.reaches(Status.STOPPED)
    change = supervised.see().history.get(new=Status.SHUTTING_DOWN)
    assert change.at.timestamp() - died >= minute / 2


def test_status_requests_do_not_prevent_an_idle_stop(
    supervised: NodeUnderTest, reports: list[WebReport]
) -> None:
    reports[:] = [WebReport("web", SEEN_ALL, {"one": 1}, looking={"one": 1})]
    supervised.running(idle_timeout=1)
    until(lambda: supervised.see().status == Status.SHUTTING_DOWN)
    reports[:] = [WebReport("web", SEEN_ALL)]
    supervised.reaches(Status.STOPPED)


def test_a_request_at_the_time_of_the_idle_stop_is_answered(
    supervised: NodeUnderTest, reports: list[WebReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    request_stop = rows.request_stop

    def request_and_be_late(row: Any, cause: str) -> bool:
        # A web process that has not seen the stop yet sends one more request.
        is_requested = request_stop(row, cause)
        reports[:] = [WebReport("web", SEEN_ALL, {"one": 1})]
        return is_requested

    monkeypatch.setattr(rows, "request_stop", request_and_be_late)
    pid = supervised.running(idle_timeout=1).pid or 0
    until(lambda: supervised.see().status == Status.SHUTTING_DOWN)
    time.sleep(1.3)  # longer than drain_timeout
    assert is_alive(pid)
    reports[:] = [WebReport("web", SEEN_ALL)]
    supervised.reaches(Status.STOPPED)


def test_a_stop_that_the_database_refuses_is_requested_again(
    supervised: NodeUnderTest, reports: list[WebReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    request_stop = rows.request_stop
    refusals: list[str] = []

    def refuse_once(row: Any, cause: str) -> bool:
        if not refusals:
            refusals.append(cause)
            raise IntegrityError("not now")
        return request_stop(row, cause)

    monkeypatch.setattr(rows, "request_stop", refuse_once)
    reports[:] = [WebReport("web", SEEN_ALL)]
    supervised.running(idle_timeout=1)
    supervised.reaches(Status.STOPPED)
    assert refusals == [IDLE]


def test_last_use_is_written_in_batches_and_when_the_worker_ends(
    node: NodeUnderTest,
    reports: list[WebReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "USED_POLL_SECONDS", 0.1)
    node.start()
    node.running(idle_timeout=100)
    used = time.time()
    reports[:] = [WebReport("web", SEEN_ALL, last_used={"one": used})]

    def written() -> bool:
        at = node.see().last_used_at
        return at is not None and abs(at.timestamp() - used) < 0.01

    until(written)
    monkeypatch.setattr(scheduler, "USED_POLL_SECONDS", 60)
    later = used + 1
    reads: list[object] = []

    def read_reports(client: object) -> list[WebReport]:
        reads.append(client)
        return [WebReport("web", SEEN_ALL, last_used={"one": later})]

    monkeypatch.setattr(traffic_monitor, "read_reports", read_reports)
    # The second is asked for when the first has been taken in.
    until(lambda: len(reads) >= 2)
    node.stop()
    at = node.see().last_used_at
    assert at is not None
    assert abs(at.timestamp() - later) < 0.01
