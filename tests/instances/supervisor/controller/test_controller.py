"""The controller's moves between phases, without processes and a database."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from instances.states import EVICTED, DesiredState, Status
from instances.supervisor.controller import spawn
from instances.supervisor.controller.controller import InstanceController
from instances.supervisor.controller.health_check import READY
from instances.supervisor.controller.phases.stopping import Stopping
from instances.supervisor.state.rows import Row
from tests.instances.supervisor.controller.phases.conftest import Bench, FakeProcess, bench, row

__all__ = ["bench"]


def adopted(bench: Bench, process: FakeProcess, row: Row) -> InstanceController:
    controller = InstanceController("one", row, bench.context)
    controller.adopt(process)
    return controller


def exit_of(bench: Bench) -> None:
    """Let the watched process exit."""
    on_exit = bench.watched.pop()
    on_exit()


@pytest.fixture
def process() -> FakeProcess:
    return FakeProcess()


@pytest.fixture
def running() -> Row:
    return row(status=Status.RUNNING, observed_generation=1)


def test_an_adopted_process_becomes_ready(bench: Bench, process: FakeProcess, running: Row) -> None:
    controller = adopted(bench, process, running)
    assert controller.has_process
    assert not controller.is_ready
    controller.step()
    bench.answer(READY)
    controller.step()
    assert controller.is_ready
    assert controller.process is process


def test_an_adopted_process_of_a_stopped_instance_is_stopped(
    bench: Bench, process: FakeProcess, running: Row
) -> None:
    controller = adopted(bench, process, replace(running, status=Status.SHUTTING_DOWN))
    assert not controller.is_running
    assert controller.has_process


def test_a_preemption_takes_effect_before_a_newer_request(
    bench: Bench, process: FakeProcess, running: Row
) -> None:
    controller = adopted(bench, process, running)
    controller.preempt(EVICTED, "preempted for two")
    controller.update(replace(running, generation=2, requested_by="proxy:on_demand"))
    controller.step()
    # It should give its allocation away, and then wait for another one.
    assert not controller.allocation.is_granted
    assert bench.last().cause == EVICTED
    assert bench.last().reason == "preempted for two"


def test_an_operators_stop_bounds_the_drain_of_a_preemption(
    bench: Bench, process: FakeProcess, running: Row
) -> None:
    controller = adopted(bench, process, running)
    controller.preempt(EVICTED, "")
    assert not controller.is_busy
    controller.update(replace(running, desired_state=DesiredState.STOPPED))
    assert controller.is_busy


def test_a_phase_that_fails_to_begin_is_begun_again_and_keeps_its_process(
    bench: Bench, process: FakeProcess, running: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = adopted(bench, process, running)
    controller.update(replace(running, desired_state=DesiredState.STOPPED))
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise RuntimeError

        patched.setattr(Stopping, "enter", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                controller.step()
            assert controller.pid == 1234
    controller.step()
    assert bench.last().new is Status.SHUTTING_DOWN
    assert len(bench.watched) == 1


def test_an_abandoned_instance_without_a_process_fails_until_a_new_request(bench: Bench) -> None:
    controller = InstanceController("one", row(), bench.context)
    controller.step()
    controller.abandon(RuntimeError("secret"))
    assert bench.seen()[-1] == (Status.FAILED, "supervisor:fault")
    controller.step()
    assert not controller.allocation.is_requested
    controller.update(row(generation=2))
    controller.step()
    assert controller.allocation.is_requested


def test_an_exit_is_recorded_once(
    bench: Bench, process: FakeProcess, running: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "close_log", lambda *_: ["a key b"])
    controller = adopted(bench, process, running)
    on_exit = bench.watched[0]
    on_exit()
    on_exit()
    assert [status for status, _ in bench.seen()] == [Status.RUNNING, Status.STOPPED]
    assert not controller.has_process


def test_a_start_waits_until_the_last_container_is_removed(
    bench: Bench, running: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "close_log", lambda *_: [])
    controller = adopted(bench, FakeProcess(container="llamactl-one-8000"), running)
    controller.update(replace(running, generation=2))
    exit_of(bench)
    seen = len(bench.seen())
    controller.step()
    assert controller.has_process
    assert len(bench.seen()) == seen
    for _ in range(len(bench.jobs)):
        bench.answer(None)
    controller.step()
    assert bench.last().new is Status.STARTING


def test_the_end_of_the_worker_stops_the_process_and_keeps_the_desired_state(
    bench: Bench, process: FakeProcess, running: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "close_log", lambda *_: [])
    controller = adopted(bench, process, running)
    controller.shut_down()
    controller.end_quickly()
    controller.step()
    controller.step()
    assert process.signals == [signal.SIGCONT, signal.SIGINT]
    exit_of(bench)
    assert bench.seen()[-2:] == [
        (Status.SHUTTING_DOWN, "supervisor:shutdown"),
        (Status.STOPPED, "supervisor:shutdown"),
    ]
    assert bench.last().columns["observed_generation"] == 0
