"""An instance without a process, and its way to a start."""

from __future__ import annotations

import pytest

from instances.states import ABANDONED, DesiredState, Status
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.starting import Starting
from instances.supervisor.controller.phases.waiting import WaitingForAllocation
from tests.instances.supervisor.controller.phases.conftest import Bench, row


def test_a_requested_start_waits_for_its_allocation(bench: Bench) -> None:
    assert isinstance(bench.step(bench.phases.settled()), WaitingForAllocation)


def test_a_requested_start_begins_with_an_allocation(bench: Bench) -> None:
    bench.instance.allocation.grant()
    assert isinstance(bench.step(bench.phases.settled()), Starting)


@pytest.mark.parametrize("status", [Status.STOPPED, Status.FAILED])
def test_an_outcome_stays_until_a_new_request(bench: Bench, status: Status) -> None:
    bench.set(row(status=status, observed_generation=1))
    bench.instance.allocation.grant()
    settled = bench.phases.settled()
    assert bench.step(settled) is settled
    assert settled.due == NO_DEADLINE
    assert not bench.instance.allocation.is_granted
    assert bench.seen() == []
    bench.change(generation=2)
    assert isinstance(bench.step(settled), WaitingForAllocation)


@pytest.mark.parametrize("status", [Status.STARTING, Status.RUNNING])
def test_a_process_that_ended_without_a_worker_is_started_again(
    bench: Bench, status: Status
) -> None:
    bench.set(row(status=status, observed_generation=1))
    settled = bench.phases.settled()
    assert bench.step(settled) is settled
    assert bench.seen() == [(Status.RESTARTING, "supervisor:adoption")]
    assert isinstance(bench.step(settled), WaitingForAllocation)


def test_a_stop_that_an_earlier_worker_began_is_completed_before_the_start(bench: Bench) -> None:
    bench.set(row(status=Status.SHUTTING_DOWN, observed_generation=1))
    settled = bench.phases.settled()
    bench.step(settled)
    assert bench.seen() == [(Status.STOPPED, "supervisor:adoption")]
    assert isinstance(bench.step(settled), WaitingForAllocation)


def test_an_operators_stop_clears_a_failure(bench: Bench) -> None:
    bench.set(row(status=Status.FAILED, desired_state=DesiredState.STOPPED))
    settled = bench.phases.settled()
    assert bench.step(settled) is settled
    assert bench.seen() == [(Status.STOPPED, "supervisor:stop")]


def test_an_abandoned_start_keeps_the_last_failure(bench: Bench) -> None:
    stopped = {"desired_state": DesiredState.STOPPED, "requested_by": ABANDONED}
    bench.set(row(status=Status.FAILED, **stopped))
    bench.enter(bench.phases.settled())
    assert bench.seen() == []


def test_the_end_of_the_worker_leaves_the_start_to_the_next_worker(bench: Bench) -> None:
    bench.set(row(status=Status.RESTARTING, observed_generation=1))
    bench.instance.is_worker_ending = True
    assert isinstance(bench.enter(bench.phases.settled()), Settled)
    assert bench.seen() == [(Status.STOPPED, "supervisor:shutdown")]
    assert bench.last().columns["observed_generation"] == 0


def test_a_deleted_instance_is_left_alone(bench: Bench) -> None:
    bench.set(None)
    settled = bench.phases.settled()
    assert bench.step(settled) is settled
    assert bench.seen() == []
