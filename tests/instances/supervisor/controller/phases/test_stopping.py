"""The end of a process: drain, signals, and the status after it."""

from __future__ import annotations

import signal

import pytest

from instances.states import EVICTED, ON_DEMAND, Status
from instances.supervisor.controller.drain import InFlight
from instances.supervisor.controller.phases.phase import Phase
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.starting import Starting
from instances.supervisor.failure import supervision_failure
from tests.instances.supervisor.controller.phases.conftest import Bench, FakeProcess, row


@pytest.fixture
def process() -> FakeProcess:
    return FakeProcess()


@pytest.fixture
def running(bench: Bench) -> Bench:
    bench.set(row(status=Status.RUNNING, observed_generation=1))
    bench.instance.allocation.grant()
    return bench


def stop(bench: Bench, process: FakeProcess, requested_by: str = "api") -> Phase:
    bench.request_stop(requested_by)
    return bench.enter(bench.phases.stopping(process))


def drained(bench: Bench, phase: Phase) -> None:
    bench.store.written()
    bench.step(phase)
    bench.answer(InFlight.NOTHING)
    bench.step(phase)


def test_a_stop_is_announced_before_requests_are_drained(
    running: Bench, process: FakeProcess
) -> None:
    phase = stop(running, process)
    assert running.seen() == [(Status.SHUTTING_DOWN, "supervisor:stop")]
    running.step(phase)
    assert running.jobs == []  # the web processes can't know of the stop yet
    running.store.written()
    running.step(phase)
    running.answer(InFlight.REQUESTS)
    running.step(phase)
    assert process.signals == []
    running.step(phase, after_seconds=0.2)
    running.answer(InFlight.NOTHING)
    running.step(phase)
    assert process.signals == [signal.SIGINT]


def test_a_drain_ends_at_its_deadline(running: Bench, process: FakeProcess) -> None:
    phase = stop(running, process)
    running.store.written()
    running.step(phase, after_seconds=29)
    assert process.signals == []
    running.step(phase, after_seconds=1)
    assert process.signals == [signal.SIGINT]


def test_each_signal_follows_after_a_grace_period(running: Bench, process: FakeProcess) -> None:
    phase = stop(running, process)
    drained(running, phase)
    for _ in range(3):
        running.step(phase, after_seconds=9.9)
        running.step(phase, after_seconds=0.2)
    assert process.signals[:3] == [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


def test_a_stopped_instance_is_settled_without_an_allocation(
    running: Bench, process: FakeProcess
) -> None:
    phase = stop(running, process)
    assert not running.instance.allocation.is_granted
    assert isinstance(running.exit(phase, 0), Settled)
    assert running.last().new is Status.STOPPED
    assert running.last().reason == "exit code 0"


def test_a_restart_keeps_its_allocation_and_starts_again(
    running: Bench, process: FakeProcess
) -> None:
    running.change(generation=2)
    phase = running.enter(running.phases.stopping(process))
    assert running.instance.allocation.is_granted
    assert running.seen() == [(Status.SHUTTING_DOWN, "supervisor:restart")]
    settled = running.exit(phase, 0)
    assert running.last().new is Status.STOPPED
    assert isinstance(running.step(settled), Starting)


@pytest.mark.parametrize("requested_by", [EVICTED, ON_DEMAND])
def test_a_preempted_instance_answers_its_requests_however_long_they_take(
    running: Bench, process: FakeProcess, requested_by: str
) -> None:
    phase = stop(running, process, requested_by)
    assert not phase.is_busy  # the next worker can go on
    running.store.written()
    running.step(phase)
    running.answer(InFlight.REQUESTS)
    running.step(phase, after_seconds=3600)
    assert process.signals == []
    # A request that only asks for the status delays a preemption by drain_timeout at most.
    running.answer(InFlight.STATUS_REQUESTS)
    running.step(phase)
    assert process.signals == [signal.SIGINT]


def test_a_deadline_bounds_the_drain_of_a_preempted_instance(
    running: Bench, process: FakeProcess
) -> None:
    phase = stop(running, process, EVICTED)
    phase.limit_drain(running.now + 30)
    assert phase.is_busy
    running.step(phase, after_seconds=30)
    assert process.signals == [signal.SIGINT]


def test_a_quick_end_skips_the_drain_and_shortens_the_grace_period(
    running: Bench, process: FakeProcess
) -> None:
    phase = stop(running, process)
    phase.end_quickly(running.now)
    running.step(phase)
    running.step(phase, after_seconds=1)
    assert process.signals == [signal.SIGINT, signal.SIGTERM]


def test_a_stop_that_an_earlier_worker_announced_is_drained_at_once(
    running: Bench, process: FakeProcess
) -> None:
    running.set(row(status=Status.SHUTTING_DOWN, observed_generation=1))
    phase = stop(running, process)
    assert running.seen() == []
    running.step(phase)
    assert len(running.jobs) == 1


def test_the_process_of_a_deleted_instance_is_ended_without_a_drain(
    bench: Bench, process: FakeProcess
) -> None:
    bench.set(None)
    phase = bench.enter(bench.phases.stopping(process))
    bench.step(phase)
    assert process.signals == [signal.SIGINT]
    assert bench.seen() == []


def test_a_container_is_stopped_with_its_client(running: Bench) -> None:
    process = FakeProcess(container="llamactl-one-8000")
    phase = stop(running, process)
    drained(running, phase)
    assert running.instance.docker.is_pending
    _, then = running.jobs.pop()
    then(None)
    assert not running.instance.docker.is_pending


@pytest.fixture
def abandoned(running: Bench, process: FakeProcess) -> Phase:
    failure = supervision_failure(RuntimeError("secret"))
    return running.enter(running.phases.abandoned(process, failure))


def test_an_abandoned_process_is_killed_and_its_instance_fails(
    running: Bench, process: FakeProcess, abandoned: Phase
) -> None:
    assert process.signals == [signal.SIGKILL]
    assert not abandoned.is_ready
    assert running.step(abandoned) is abandoned
    settled = running.exit(abandoned, -9)
    assert running.seen() == [(Status.FAILED, "supervisor:fault")]
    assert running.step(settled) is settled


def test_an_abandoned_process_that_was_to_stop_is_stopped(running: Bench, abandoned: Phase) -> None:
    running.request_stop()
    running.exit(abandoned, -9)
    assert running.seen() == [(Status.STOPPED, "supervisor:stop")]
