"""Failed starts that requests caused, and the hold that follows."""

from __future__ import annotations

from datetime import datetime

import pytest
from django.utils import timezone

from instances.errors import PortUnavailable
from instances.states import ON_DEMAND, DesiredState, Status
from tests.instances.supervisor.controller.phases.conftest import Bench, FakeProcess, row


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    return now


def fail(bench: Bench, **changes: object) -> None:
    """Request one more start, which fails: another program has its port."""
    assert bench.instance.row is not None
    bench.change(generation=bench.instance.row.generation + 1, **changes)
    bench.instance.allocation.grant()
    starting = bench.enter(bench.phases.starting(bench.instance.row))
    starting._port_problem = PortUnavailable("taken")  # type: ignore[attr-defined]
    bench.step(starting, after_seconds=10)
    assert bench.last().new is Status.FAILED


def hold(bench: Bench, now: datetime) -> float | None:
    until = bench.last().columns["failure_hold_until"]
    return (until - now).total_seconds() if isinstance(until, datetime) else None


def test_each_failed_start_of_a_request_doubles_the_hold(bench: Bench, now: datetime) -> None:
    holds = []
    for _ in range(4):
        fail(bench, requested_by=ON_DEMAND)
        holds.append(hold(bench, now))
    assert holds == [5, 10, 20, 40]
    assert bench.last().columns["failed_starts"] == 4


def test_worker_that_comes_back_goes_on_counting(bench: Bench, now: datetime) -> None:
    bench.set(row(status=Status.FAILED, observed_generation=1, failed_starts=3))
    fail(bench, requested_by=ON_DEMAND)
    assert hold(bench, now) == 40


def test_failed_start_of_an_operator_holds_nothing_and_ends_the_count(
    bench: Bench, now: datetime
) -> None:
    fail(bench, requested_by=ON_DEMAND)
    fail(bench, requested_by="api")
    assert (hold(bench, now), bench.last().columns["failed_starts"]) == (None, 0)
    fail(bench, requested_by=ON_DEMAND)
    assert hold(bench, now) == 5


def test_edit_ends_the_count(bench: Bench, now: datetime) -> None:
    fail(bench, requested_by=ON_DEMAND)
    fail(bench, requested_by=ON_DEMAND)
    assert bench.instance.row is not None
    fail(bench, requested_by=ON_DEMAND, edited_generation=bench.instance.row.generation)
    assert hold(bench, now) == 5


def test_operators_stop_ends_the_count(bench: Bench, now: datetime) -> None:
    fail(bench, requested_by=ON_DEMAND)
    fail(bench, requested_by=ON_DEMAND)
    bench.request_stop()
    bench.enter(bench.phases.settled())
    assert bench.last().new is Status.STOPPED
    fail(bench, requested_by=ON_DEMAND, desired_state=DesiredState.RUNNING)
    assert hold(bench, now) == 5


def test_new_start_ends_the_hold(bench: Bench) -> None:
    fail(bench, requested_by=ON_DEMAND)
    bench.enter(bench.phases.starting(row(generation=3, requested_by=ON_DEMAND)))
    assert bench.last().columns["failure_hold_until"] is None


def test_restarts_of_a_ready_backend_count_once(bench: Bench, now: datetime) -> None:
    """The restart policy has its own delays; the hold begins when it gives up."""
    bench.set(
        row(
            status=Status.RUNNING,
            observed_generation=1,
            restarts=3,
            failed_starts=1,
            requested_by=ON_DEMAND,
        )
    )
    bench.instance.allocation.grant()
    bench.exit(bench.enter(bench.phases.ready(FakeProcess(), None, None)), 1)
    assert bench.last().new is Status.FAILED
    assert (bench.last().columns["failed_starts"], hold(bench, now)) == (2, 5)


def test_stable_backend_ends_the_count(bench: Bench) -> None:
    bench.set(row(status=Status.RUNNING, observed_generation=1, failed_starts=4))
    ready = bench.enter(bench.phases.ready(FakeProcess(), None, None))
    bench.step(ready, after_seconds=61)
    assert bench.last().cause == "supervisor:stable"
    assert bench.last().columns["failed_starts"] == 0
