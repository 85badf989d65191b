"""Waiting for capacity, or for the delay after a crash."""

from __future__ import annotations

import pytest

from instances.states import Status
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller.phases.phase import Phase
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.starting import Starting
from instances.supervisor.controller.phases.waiting import WaitingForAllocation
from tests.instances.supervisor.controller.phases.conftest import Bench, row


def test_a_start_waits_until_it_is_granted(bench: Bench) -> None:
    waiting = bench.enter(bench.phases.waiting_for_allocation())
    assert bench.instance.allocation.is_requested
    assert bench.step(waiting, after_seconds=600) is waiting
    assert waiting.due == NO_DEADLINE
    bench.instance.allocation.grant()
    assert isinstance(bench.step(waiting), Starting)
    assert not bench.instance.allocation.is_requested


@pytest.fixture
def restarting(bench: Bench) -> Phase:
    """A restart in 5 s, of an instance with its allocation."""
    bench.set(row(status=Status.RESTARTING, observed_generation=1))
    bench.instance.allocation.grant()
    return bench.enter(bench.phases.waiting_to_restart(bench.now + 5))


def test_a_restart_waits_for_its_delay(bench: Bench, restarting: Phase) -> None:
    assert bench.step(restarting, after_seconds=4.9) is restarting
    assert restarting.due == pytest.approx(bench.now + 0.1)
    assert isinstance(bench.step(restarting, after_seconds=0.2), Starting)


def test_a_requested_start_does_not_wait_for_the_delay(bench: Bench, restarting: Phase) -> None:
    bench.change(generation=2)
    assert isinstance(bench.step(restarting), Starting)


def test_a_restart_without_an_allocation_requests_one(bench: Bench, restarting: Phase) -> None:
    bench.instance.allocation.release()
    assert isinstance(bench.step(restarting, after_seconds=5), WaitingForAllocation)


@pytest.mark.parametrize("kind", ["allocation", "restart"])
def test_a_stop_cancels_the_wait(bench: Bench, restarting: Phase, kind: str) -> None:
    waiting = bench.enter(bench.phases.waiting_for_allocation())
    bench.request_stop()
    settled = bench.step(waiting if kind == "allocation" else restarting)
    assert isinstance(bench.enter(settled), Settled)
    assert bench.seen() == [(Status.STOPPED, "supervisor:stop")]
    assert not bench.instance.allocation.is_requested
    assert not bench.instance.allocation.is_granted
