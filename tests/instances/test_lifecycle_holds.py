"""Holds in the rules of starting, stopping and changing; nothing runs here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from instances import lifecycle, node_drain
from instances.errors import BackendStartFailed, StoppedByOperator
from instances.models import Instance
from instances.states import EVICTED, ON_DEMAND, DesiredState, Status
from llamactl.models import Revision
from nodes.errors import NodeDrained

pytestmark = pytest.mark.django_db

MODEL = {"backend_type": "llama_cpp", "backend_options": {"model": "/models/a.gguf"}}


def failed(seconds: float = 60) -> Instance:
    """An instance whose last start was an activation, and failed."""
    instance = lifecycle.create("a", MODEL, cause="test")
    instance = lifecycle.request_start("a", cause=ON_DEMAND)
    Instance.objects.filter(pk=instance.pk).update(
        status=Status.FAILED,
        observed_generation=instance.generation,
        failure={"reason": "crashed", "details": "no", "exit_code": 1, "log_tail": []},
        failed_starts=1,
        failure_hold_until=timezone.now() + timedelta(seconds=seconds),
    )
    return lifecycle.get("a")


def test_request_during_the_hold_of_a_failure_starts_nothing() -> None:
    before = failed()
    with pytest.raises(BackendStartFailed):
        lifecycle.request_start("a", cause=ON_DEMAND)
    assert lifecycle.get("a").generation == before.generation


@pytest.mark.parametrize("cause", ["api", "admin:bob"])
def test_operators_start_ends_the_hold_of_a_failure(cause: str) -> None:
    before = failed()
    assert lifecycle.request_start("a", cause=cause).generation == before.generation + 1


def test_request_after_the_hold_of_a_failure_starts_the_instance() -> None:
    before = failed(seconds=-1)
    assert lifecycle.request_start("a", cause=ON_DEMAND).generation == before.generation + 1


@pytest.mark.parametrize("changes", [{}, {"idle_timeout": 5}, {"environment": {"A": "b"}}])
def test_edit_ends_the_hold_of_a_failure_even_without_a_change(changes: dict[str, Any]) -> None:
    before = failed()
    numbers = Revision.numbers()
    lifecycle.update("a", {**MODEL, **changes}, cause="api")
    # It should reach the routing tables of all web processes.
    assert Revision.numbers() != numbers
    assert lifecycle.request_start("a", cause=ON_DEMAND).generation == before.generation + 1


def stopped_by_operator() -> Instance:
    lifecycle.create("a", MODEL, cause="test")
    lifecycle.request_start("a", cause=ON_DEMAND)
    return lifecycle.request_stop("a", cause="api")


def test_request_during_the_hold_of_a_stop_starts_nothing(override: Any) -> None:
    stopped_by_operator()
    with pytest.raises(StoppedByOperator) as refused:
        lifecycle.request_start("a", cause=ON_DEMAND)
    assert refused.value.retry_after == 30
    assert not lifecycle.get("a").should_run
    Instance.objects.update(stop_hold_until=timezone.now())
    assert lifecycle.request_start("a", cause=ON_DEMAND).should_run


def test_hold_of_a_stop_can_be_switched_off(override: Any) -> None:
    override(instances={"operator_stop_hold": 0})
    stopped_by_operator()
    assert lifecycle.request_start("a", cause=ON_DEMAND).should_run


def test_operators_start_ends_the_hold_of_a_stop_for_good() -> None:
    stopped_by_operator()
    lifecycle.request_start("a", cause="api")
    # It should be no operator's stop any more when the supervisor preempts the instance.
    Instance.objects.update(desired_state=DesiredState.STOPPED, requested_by=EVICTED)
    assert lifecycle.request_start("a", cause=ON_DEMAND).should_run


def test_stop_of_a_preempted_instance_is_not_undone_either() -> None:
    lifecycle.create("a", MODEL, cause="test")
    Instance.objects.update(requested_by=EVICTED)
    numbers = Revision.numbers()
    lifecycle.request_stop("a", cause="api")
    assert Revision.numbers() != numbers
    with pytest.raises(StoppedByOperator):
        lifecycle.request_start("a", cause=ON_DEMAND)


def test_drained_instance_is_refused_for_the_drain() -> None:
    instance = lifecycle.create("a", MODEL, cause="test")
    lifecycle.request_start("a", cause=ON_DEMAND)
    node_drain.drain(instance.node.name)
    assert lifecycle.get("a").stop_hold_until is None
    with pytest.raises(NodeDrained):
        lifecycle.request_start("a", cause=ON_DEMAND)
