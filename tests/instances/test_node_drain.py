"""A node is emptied for maintenance and put back to work."""

from __future__ import annotations

import pytest
from django.test import Client

from instances import lifecycle, node_drain
from instances.models import Instance
from instances.states import EVICTED, DesiredState, Status
from nodes.errors import NodeDrained, NodeNotFound
from nodes.models import Node

pytestmark = pytest.mark.django_db


def create(name: str, *, should_run: bool, **observed: object) -> Instance:
    lifecycle.create(name, {"backend_options": {"model": "/m.gguf"}}, cause="test")
    if should_run:
        lifecycle.request_start(name, cause="test")
    Instance.objects.filter(name=name).update(**observed)
    return Instance.objects.get(name=name)


def desired_states() -> dict[str, str]:
    return dict(Instance.objects.values_list("name", "desired_state"))


def test_drain_stops_running_instances_and_resume_starts_the_same_again() -> None:
    create("up", should_run=True, observed_generation=1, status=Status.RUNNING)
    create("idle", should_run=False)
    create("broken", should_run=True, observed_generation=1, status=Status.FAILED)
    assert node_drain.drain("main") == ["up"]
    assert [name for name, state in desired_states().items() if state == "running"] == ["broken"]
    assert Node.objects.get().is_drained
    Instance.objects.filter(name="up").update(status=Status.STOPPED)
    assert node_drain.resume("main") == ["up"]
    assert desired_states() == {"up": "running", "idle": "stopped", "broken": "running"}
    assert not Instance.objects.get(name="broken").should_run
    assert Instance.objects.get(name="up").has_pending_generation
    assert not Node.objects.get().is_drained


def test_failure_outlives_a_drain_and_a_resume() -> None:
    failure = {"reason": "out_of_memory", "details": "no", "exit_code": 1, "log_tail": []}
    seen = {"observed_generation": 1, "status": Status.FAILED, "failure": failure}
    create("broken", should_run=True, **seen)
    before = Instance.objects.values().get()
    node_drain.drain("main")
    node_drain.resume("main")
    assert Instance.objects.values().get() == before


def test_drain_takes_over_a_stop_that_the_supervisor_began() -> None:
    seen = {"observed_generation": 1, "status": Status.SHUTTING_DOWN, "pid": 7}
    evicted = {"desired_state": DesiredState.STOPPED, "requested_by": EVICTED}
    create("a", should_run=True, **seen, **evicted)
    node_drain.drain("main", cause="drain")
    assert Instance.objects.get().requested_by == "drain"


def test_drained_node_starts_nothing() -> None:
    create("a", should_run=False)
    node_drain.drain("main")
    for ask in (lifecycle.request_start, lifecycle.request_restart):
        with pytest.raises(NodeDrained, match="drained for maintenance") as caught:
            ask("a", cause="proxy:on_demand")
        assert (caught.value.status, caught.value.code) == (503, "node_drained")
    assert desired_states() == {"a": "stopped"}
    assert Instance.objects.get().generation == 0


def test_api_answers_503_for_a_start_on_a_drained_node(api: Client) -> None:
    create("a", should_run=False)
    node_drain.drain("main")
    answer = api.post("/api/v1/instances/a/start")
    assert answer.status_code == 503
    assert answer.json()["error"] == "node_drained"
    assert "--resume" in answer.json()["details"]


def test_second_drain_keeps_the_instances_to_resume() -> None:
    create("a", should_run=True)
    node_drain.drain("main")
    assert node_drain.drain("main") == []
    assert node_drain.resume("main") == ["a"]


def test_resume_skips_deleted_instances_and_is_idempotent() -> None:
    create("a", should_run=True)
    create("b", should_run=True)
    node_drain.drain("main")
    lifecycle.delete("a", cause="test")
    assert node_drain.resume("main") == ["b"]
    assert node_drain.resume("main") == []


def test_other_nodes_are_left_alone() -> None:
    create("a", should_run=True)
    elsewhere = Node.objects.create(name="elsewhere")
    create("b", should_run=True, node=elsewhere)
    node_drain.drain("elsewhere")
    assert desired_states() == {"a": "running", "b": "stopped"}
    create("c", should_run=True)


def test_unknown_node_is_refused() -> None:
    for act in (node_drain.drain, node_drain.resume):
        with pytest.raises(NodeNotFound):
            act("nowhere")


def test_unfinished_instances_may_have_a_process() -> None:
    create("a", should_run=False, status=Status.SHUTTING_DOWN)
    create("b", should_run=False, status=Status.RESTARTING)
    create("c", should_run=False, status=Status.FAILED, pid=7)
    create("d", should_run=False)
    assert node_drain.unfinished("main") == ["a", "b", "c"]
