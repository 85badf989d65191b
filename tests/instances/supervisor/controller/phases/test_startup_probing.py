"""A process that is not ready yet."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
from django.utils import timezone

from instances.states import Status
from instances.supervisor.controller.health_check import READY, ProbeAnswer
from instances.supervisor.controller.phases.phase import Phase
from instances.supervisor.controller.phases.ready import Ready
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.stopping import Stopping
from instances.supervisor.controller.phases.waiting import WaitingToRestart
from tests.instances.supervisor.controller.phases.conftest import Bench, FakeProcess, row


@pytest.fixture
def process() -> FakeProcess:
    return FakeProcess()


@pytest.fixture
def probing(bench: Bench, process: FakeProcess) -> Phase:
    bench.set(row(status=Status.STARTING, observed_generation=1))
    assert bench.instance.row is not None
    bench.instance.allocation.grant()
    phase = bench.phases.startup_probing(process, bench.instance.row, is_adopted=False)
    return bench.enter(phase)


def adopted(bench: Bench, process: FakeProcess, status: Status) -> Phase:
    ready_at = timezone.now() - timedelta(seconds=100)
    bench.set(row(status=status, observed_generation=1, ready_at=ready_at))
    assert bench.instance.row is not None
    phase = bench.phases.startup_probing(process, bench.instance.row, is_adopted=True)
    return bench.enter(phase)


def test_the_pid_is_written_and_the_first_answer_makes_it_ready(
    bench: Bench, probing: Phase
) -> None:
    assert bench.last().columns["pid"] == 1234
    assert bench.step(probing) is probing
    bench.answer(ProbeAnswer(is_ready=False))
    assert bench.step(probing, after_seconds=0.05) is probing
    assert bench.jobs == []
    assert bench.step(probing, after_seconds=0.1) is probing
    bench.answer(READY)
    ready = bench.step(probing)
    assert isinstance(ready, Ready)
    assert bench.last().new is Status.RUNNING
    assert ready.is_ready
    bench.store.written(9)
    assert bench.instance.allocation.known_ready_from == 9


def test_a_start_that_takes_too_long_is_stopped_and_fails(
    bench: Bench, probing: Phase, process: FakeProcess
) -> None:
    assert not probing.is_ready
    stopping = bench.step(probing, after_seconds=60)
    assert isinstance(bench.enter(stopping), Stopping)
    # It never served a request, so there is nothing to drain, and its status stays.
    bench.step(stopping)
    assert process.signals == [signal.SIGINT]
    assert bench.last().new is Status.STARTING
    assert isinstance(bench.exit(stopping, -9, "last line"), Settled)
    assert bench.last().new is Status.FAILED
    failure = bench.last().columns["failure"]
    assert isinstance(failure, dict)
    assert (failure["reason"], failure["log_tail"]) == ("timeout", ["last line"])


def test_a_start_that_takes_too_long_says_what_the_last_probe_got(
    bench: Bench, probing: Phase
) -> None:
    bench.step(probing)
    bench.answer(ProbeAnswer(is_ready=False, details="503 at /health (still loading)"))
    stopping = bench.enter(bench.step(probing, after_seconds=60))
    bench.exit(stopping, -9)
    failure = bench.last().columns["failure"]
    assert isinstance(failure, dict)
    assert failure["details"] == (
        "not ready within 60 s (instances.start_timeout), so it was stopped; the last probe got:"
        " 503 at /health (still loading)"
    )


def test_an_answer_after_the_end_of_the_phase_changes_nothing(bench: Bench, probing: Phase) -> None:
    bench.step(probing)
    stopping = bench.enter(bench.step(probing, after_seconds=60))
    bench.answer(READY)
    assert bench.step(stopping) is stopping
    assert bench.last().new is Status.STARTING


@pytest.mark.parametrize("change", ["stop", "restart", "delete"])
def test_a_process_that_is_not_wanted_any_more_is_stopped(
    bench: Bench, probing: Phase, change: str
) -> None:
    if change == "stop":
        bench.request_stop()
    elif change == "restart":
        bench.change(generation=2)
    else:
        bench.instance.row = None
    assert isinstance(bench.step(probing), Stopping)


@pytest.mark.parametrize("code", [0, 3])
def test_a_first_start_that_exits_fails_whatever_its_code(
    bench: Bench, probing: Phase, code: int
) -> None:
    assert isinstance(bench.exit(probing, code), Settled)
    assert bench.last().new is Status.FAILED


def test_a_restart_that_exits_is_tried_again(bench: Bench, probing: Phase) -> None:
    bench.instance.observed.has_been_ready = True
    assert isinstance(bench.exit(probing, 3), WaitingToRestart)
    assert bench.last().new is Status.RESTARTING


def test_an_adopted_process_that_was_ready_has_no_deadline(
    bench: Bench, process: FakeProcess
) -> None:
    phase = adopted(bench, process, Status.RUNNING)
    assert process.signals == [signal.SIGCONT]
    assert bench.seen() == [(Status.RUNNING, "supervisor:adoption")]
    assert bench.instance.allocation.ready_since == pytest.approx(bench.now - 100, abs=5)
    bench.step(phase)
    assert bench.step(phase, after_seconds=600) is phase
    bench.answer(READY)
    assert isinstance(bench.step(phase), Ready)


def test_an_adopted_process_that_was_starting_has_its_time(
    bench: Bench, process: FakeProcess
) -> None:
    phase = adopted(bench, process, Status.STARTING)
    assert isinstance(bench.step(phase, after_seconds=60), Stopping)


def test_an_adopted_process_with_unreadable_options_runs_on(
    bench: Bench, process: FakeProcess
) -> None:
    bench.set(row(status=Status.RUNNING, observed_generation=1, options={}))
    assert bench.instance.row is not None
    phase = bench.phases.startup_probing(process, bench.instance.row, is_adopted=True)
    ready = bench.step(bench.enter(phase))
    assert isinstance(bench.enter(ready), Ready)
    assert bench.step(ready, after_seconds=600) is ready
    assert ready.is_ready
