"""A ready backend: hangs, exits, stability."""

from __future__ import annotations

from typing import cast

import pytest

from instances.states import Status
from instances.supervisor.controller.liveness_probe import LivenessProbe
from instances.supervisor.controller.phases.phase import Phase
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.stopping import Stopping
from instances.supervisor.controller.phases.waiting import WaitingToRestart
from tests.instances.supervisor.controller.phases.conftest import Bench, FakeProcess, row


class FakeProbe:
    due = 2000.0
    is_unresponsive = False
    hangs = False

    def is_hung(self, now: float) -> bool:
        return self.hangs

    def step(self, now: float) -> None:
        pass


@pytest.fixture
def probe() -> FakeProbe:
    return FakeProbe()


@pytest.fixture
def ready(bench: Bench, probe: FakeProbe) -> Phase:
    bench.set(row(status=Status.RUNNING, observed_generation=1, restarts=1))
    bench.instance.allocation.grant()
    return bench.enter(bench.phases.ready(FakeProcess(), cast(LivenessProbe, probe), None))


def test_it_is_ready_and_waits_for_the_next_probe(bench: Bench, ready: Phase) -> None:
    bench.instance.observed.restarts = 0
    assert bench.step(ready) is ready
    assert ready.is_ready
    assert ready.due == 2000.0


def test_a_hang_is_a_crash(bench: Bench, ready: Phase, probe: FakeProbe) -> None:
    probe.hangs = True
    stopping = bench.step(ready)
    assert isinstance(bench.enter(stopping), Stopping)
    assert bench.seen() == []
    assert isinstance(bench.exit(stopping, -9), WaitingToRestart)
    failure = bench.last().columns["failure"]
    assert isinstance(failure, dict)
    assert failure["reason"] == "hung"


@pytest.mark.parametrize("code", [1, -11, None])
def test_a_crash_is_restarted_after_the_delay(bench: Bench, ready: Phase, code: int | None) -> None:
    waiting = bench.exit(ready, code)
    assert isinstance(waiting, WaitingToRestart)
    bench.step(waiting)
    assert waiting.due == bench.now + 10  # restart_delay, doubled for the second restart
    assert bench.last().columns["restarts"] == 2


def test_a_crash_after_the_last_restart_is_final(bench: Bench, ready: Phase) -> None:
    bench.instance.observed.restarts = 3
    assert isinstance(bench.exit(ready, 1), Settled)
    assert bench.last().new is Status.FAILED


def test_an_exit_with_code_0_is_the_outcome_of_the_start(bench: Bench, ready: Phase) -> None:
    settled = bench.exit(ready, 0)
    assert bench.seen() == [(Status.STOPPED, "supervisor:exit")]
    assert bench.step(settled) is settled


def test_an_exit_after_a_requested_stop_is_no_crash(bench: Bench, ready: Phase) -> None:
    bench.request_stop()
    assert isinstance(bench.exit(ready, 1), Settled)
    assert bench.seen() == [(Status.STOPPED, "supervisor:stop")]


def test_staying_up_resets_the_restarts(bench: Bench, ready: Phase) -> None:
    began = bench.now
    bench.step(ready, after_seconds=59)
    assert bench.instance.observed.restarts == 1
    assert ready.due == began + 60
    bench.step(ready, after_seconds=1)
    assert bench.instance.observed.restarts == 0
    assert bench.last().cause == "supervisor:stable"


def test_an_unresponsive_backend_keeps_its_restarts(
    bench: Bench, ready: Phase, probe: FakeProbe
) -> None:
    probe.is_unresponsive = True
    bench.step(ready, after_seconds=600)
    assert bench.instance.observed.restarts == 1
    assert ready.is_unresponsive
