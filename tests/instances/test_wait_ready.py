from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.utils import timezone

from instances import lifecycle
from instances.desired_state import start_failure
from instances.errors import (
    BackendStartFailed,
    BackendStartTimeout,
    InstanceNotFound,
    InstanceNotRunning,
)
from instances.models import Instance
from instances.states import Status
from instances.wait_ready import wait_until_ready
from llamactl.core.error_format import seed_document
from nodes.models import Node
from tests.support.observed import FAILURE, observe

pytestmark = pytest.mark.django_db


class Clock:
    """A clock that moves when it is slept on, and lets something happen meanwhile."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []
        self._happens: Iterator[Callable[[], object]] = iter(happens)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds
        next(self._happens, lambda: None)()


def started(name: str = "x") -> Instance:
    lifecycle.create(name, {}, cause="test")
    return lifecycle.request_start(name, cause="test")


def wait(instance: Instance, timeout_seconds: float, clock: Clock) -> Instance:
    return wait_until_ready(
        instance.name,
        instance.generation,
        timeout_seconds,
        sleep=clock.sleep,
        now=clock.now,
    )


def test_running_instance_is_returned_without_waiting() -> None:
    instance = started()
    observe("x", Status.RUNNING)
    clock = Clock()
    assert wait(instance, 0, clock).status == Status.RUNNING
    assert not clock.sleeps


def test_it_waits_through_starting_and_a_forgiven_crash() -> None:
    instance = started()
    clock = Clock(
        lambda: observe("x", Status.STARTING),
        lambda: observe("x", Status.RESTARTING),
        lambda: observe("x", Status.STARTING),
        lambda: observe("x", Status.RUNNING),
    )
    assert wait(instance, 60, clock).status == Status.RUNNING
    assert len(clock.sleeps) == 4


def test_a_restart_waits_for_the_new_process_and_not_the_old() -> None:
    started()
    observe("x", Status.RUNNING)
    instance = lifecycle.request_restart("x", cause="test")
    # It should not take the old process, still running, for the one that was asked for.
    clock = Clock(lambda: None, lambda: observe("x", Status.RUNNING))
    wait(instance, 60, clock)
    assert len(clock.sleeps) == 2


def test_newer_generation_counts_as_well() -> None:
    instance = started()
    lifecycle.request_restart("x", cause="test")
    clock = Clock(lambda: observe("x", Status.RUNNING))
    assert wait(instance, 60, clock).generation == instance.generation + 1


def test_failure_has_its_reason() -> None:
    instance = started()
    clock = Clock(lambda: observe("x", Status.FAILED, failure=FAILURE))
    with pytest.raises(BackendStartFailed) as caught:
        wait(instance, 60, clock)
    assert seed_document(caught.value) == {
        "error": "backend_start_failed",
        "details": "the process ended with exit code 3",
        "reason": "crashed",
        "exit_code": 3,
        "log_tail": ["loading model", "out of memory"],
    }
    assert caught.value.status == 502


def test_an_older_failure_is_not_this_ones() -> None:
    started()
    observe("x", Status.FAILED, failure=FAILURE)
    instance = lifecycle.request_start("x", cause="test")
    clock = Clock(lambda: None, lambda: observe("x", Status.RUNNING))
    assert wait(instance, 60, clock).status == Status.RUNNING


def test_a_process_that_ends_by_itself_is_a_failure() -> None:
    instance = started()
    with pytest.raises(BackendStartFailed, match="ended by itself"):
        wait(instance, 60, Clock(lambda: observe("x", Status.STOPPED)))


def test_time_runs_out_while_it_loads() -> None:
    instance = started()
    observe("x", Status.STARTING)
    clock = Clock()
    with pytest.raises(BackendStartTimeout) as caught:
        wait(instance, 1.1, clock)
    assert clock.seconds == pytest.approx(1.1)
    assert caught.value.status == 503
    assert caught.value.retry_after
    assert caught.value.extra["reason"] == "timeout"


def test_a_timeout_tells_a_slow_model_from_a_worker_that_is_away() -> None:
    instance = started()
    with pytest.raises(BackendStartTimeout, match="worker of node main has not reported"):
        wait(instance, 0, Clock())
    Node.objects.update(heartbeat_at=timezone.now())
    with pytest.raises(BackendStartTimeout, match="the start continues"):
        wait(instance, 0, Clock())


def test_a_stop_meanwhile_ends_the_wait() -> None:
    instance = started()
    with pytest.raises(InstanceNotRunning):
        wait(instance, 60, Clock(lambda: lifecycle.request_stop("x", cause="test")))


def test_a_delete_meanwhile_ends_the_wait() -> None:
    instance = started()
    with pytest.raises(InstanceNotFound):
        wait(instance, 60, Clock(lambda: Instance.objects.filter(name="x").delete()))


def test_another_instance_of_the_name_is_not_the_one_waited_for() -> None:
    instance = started()

    def recreate() -> None:
        Instance.objects.filter(name="x").delete()
        lifecycle.create("x", {}, cause="test")

    with pytest.raises(InstanceNotFound):
        wait(instance, 60, Clock(recreate))


@pytest.mark.parametrize("failure", [None, {}, {"details": ""}])
def test_a_failure_without_particulars_still_reads_well(failure: dict[str, str] | None) -> None:
    error = start_failure("x", failure)
    assert error.details == "instance x failed to start; its log may say why"
    assert error.extra == {"reason": "unknown", "exit_code": None, "log_tail": []}
