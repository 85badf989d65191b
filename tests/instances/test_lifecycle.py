"""The rules of creating, changing, starting and stopping; nothing runs here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from instances import lifecycle
from instances.backends.values import InvalidBackendOptions
from instances.errors import (
    InstanceBusy,
    InstanceExists,
    InstanceNotFound,
    InvalidInstance,
    InvalidInstanceName,
    NoCapacity,
    PortOutOfRange,
    PortUnavailable,
    TooManyInstances,
)
from instances.models import Instance
from instances.states import EVICTED, ON_DEMAND, DesiredState, Status
from llamactl.config import AppConfig, current
from llamactl.config.schema import NodeConfig
from llamactl.core.errors import LlamactlError
from llamactl.models import Revision
from nodes.heartbeat import write_heartbeat
from nodes.models import Node

pytestmark = pytest.mark.django_db

MODEL = {"backend_type": "llama_cpp", "backend_options": {"model": "/models/a.gguf"}}


def create(name: str = "a", **changes: object) -> Instance:
    return lifecycle.create(name, {**MODEL, **changes}, cause="test")


def observe(instance: Instance, **columns: object) -> None:
    """Write what a supervisor would have observed."""
    Instance.objects.filter(pk=instance.pk).update(**columns)


def test_new_instance_is_stopped_and_has_the_defaults_and_a_port() -> None:
    instance = create()
    low, high = current().instances.port_range
    assert instance.reported_status is Status.STOPPED
    assert low <= instance.port <= high
    assert instance.options["auto_restart"] is True
    assert instance.options["nodes"] == ["main"]


def test_ports_of_two_instances_differ_and_llamactls_own_are_never_given(override: Any) -> None:
    low, _ = current().instances.port_range
    override(server={"port": low})
    assert [create("a").port, create("b").port] == [low + 2, low + 3]


def test_second_instance_of_a_name_is_refused() -> None:
    create()
    with pytest.raises(InstanceExists):
        create()


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "../a", ".a", "a" * 51, "a\x00", "é", "a;ls", "a\n", "‮a"]
)
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInstanceName):
        create(name)
    assert not Instance.objects.exists()


@pytest.mark.parametrize("name", ["a", "a.b-c_1", "-a", "_", "0", "A" * 50])
def test_names_of_the_seed_and_names_with_periods_are_taken(name: str) -> None:
    assert create(name).name == name


def test_port_out_of_range_in_use_or_llamactls_own_is_refused_with_a_remedy(override: Any) -> None:
    low, _ = current().instances.port_range
    create("a", backend_options={"port": low + 5})
    override(server={"port": low + 6})
    for port, error in (
        (80, PortOutOfRange),
        (low + 5, PortUnavailable),
        (low + 6, PortUnavailable),
    ):
        with pytest.raises(error):
            create("b", backend_options={"port": port})
    assert Instance.objects.count() == 1


def test_exhausted_port_range_is_named_in_the_refusal(override: Any) -> None:
    override(instances={"port_range": (20000, 20001)})
    create("a")
    create("b")
    with pytest.raises(PortUnavailable, match="no available ports"):
        create("c")


def test_limit_of_instances_holds(override: Any) -> None:
    override(instances={"max_instances": 1})
    create("a")
    with pytest.raises(TooManyInstances):
        create("b")


@pytest.mark.parametrize(
    "document",
    [
        {"backend_type": "nope"},
        {"backend_type": 3},
        {"backend_options": []},
        {"backend_options": {"ctx_size": "many"}},
        {"backend_options": {"model": "a\x00b"}},
        {"auto_restart": "yes"},
        {"max_restarts": "3"},
        {"max_restarts": True},
        {"max_restarts": 10**30},
        {"environment": {"A=B": "x"}},
        {"environment": {"A": 3}},
        {"environment": {"A": "x\x00"}},
        {"environment": []},
        {"command_override": "a\x00b"},
        {"command_override": 3},
        {"working_directory": "models"},
        {"working_directory": "~/models"},
        {"working_directory": "/a\x00b"},
        {"working_directory": "/\ud800"},
        {"working_directory": "/" + 5000 * "a"},
        {"docker_image": "--privileged"},
        {"docker_image": "mine:1 --privileged"},
        {"environment": {"A": "half \ud800 pair"}},
        {"request": {"set": {"a": [[["\ud800"]]]}}},
        {"backend_options": {"extra_args": {"a": "\ud800"}}},
        {"nodes": "main"},
        {"nodes": ["elsewhere"]},
    ],
)
def test_bad_options_are_refused_and_leave_no_row(document: dict) -> None:
    with pytest.raises(LlamactlError) as caught:
        create("a", **document)
    assert caught.value.status == 400
    assert not Instance.objects.exists()


def test_negative_counts_become_zero() -> None:
    options = create(max_restarts=-1, restart_delay=-5, idle_timeout=-3).options
    assert (options["max_restarts"], options["restart_delay"], options["idle_timeout"]) == (0, 0, 0)


def test_command_override_is_dropped_with_docker_and_docker_with_mlx() -> None:
    assert "command_override" not in create("a", docker_enabled=True, command_override="/x").options
    mlx = create("b", backend_type="mlx_lm", docker_enabled=True, command_override="/x")
    assert "docker_enabled" not in mlx.options
    assert mlx.options["command_override"] == "/x"


def test_requested_start_is_reported_as_starting_until_the_node_observes_it() -> None:
    create()
    instance = lifecycle.request_start("a", cause="test")
    assert (instance.desired_state, instance.generation) == (DesiredState.RUNNING, 1)
    assert instance.status == Status.STOPPED
    assert instance.reported_status is Status.STARTING


def test_starting_twice_requests_one_process() -> None:
    create()
    lifecycle.request_start("a", cause="test")
    assert lifecycle.request_start("a", cause="test").generation == 1


def test_start_after_a_failure_requests_a_new_process() -> None:
    instance = create()
    lifecycle.request_start("a", cause="test")
    observe(instance, status=Status.FAILED, observed_generation=1)
    again = lifecycle.request_start("a", cause="test")
    assert (again.generation, again.reported_status) == (2, Status.STARTING)


def test_backend_that_ended_by_itself_can_be_started_changed_and_deleted() -> None:
    # The exit settled the generation: desired_state still says running, but no start follows.
    instance = create()
    lifecycle.request_start("a", cause="test")
    observe(instance, status=Status.STOPPED, observed_generation=1)
    assert lifecycle.update("a", MODEL, cause="test").instance.generation == 1
    assert lifecycle.request_start("a", cause="test").generation == 2
    observe(instance, status=Status.STOPPED, observed_generation=2)
    lifecycle.delete("a", cause="test")


def test_restart_is_a_new_generation_and_not_two_edges() -> None:
    instance = create()
    lifecycle.request_start("a", cause="test")
    observe(instance, status=Status.RUNNING, observed_generation=1)
    again = lifecycle.request_restart("a", cause="test")
    assert (again.desired_state, again.generation) == (DesiredState.RUNNING, 2)


def test_stop_of_a_running_instance_shows_as_shutting_down_at_once() -> None:
    instance = create()
    lifecycle.request_start("a", cause="test")
    observe(instance, status=Status.RUNNING, observed_generation=1)
    assert lifecycle.request_stop("a", cause="test").reported_status is Status.SHUTTING_DOWN


def test_update_replaces_all_options_but_keeps_node_and_port() -> None:
    created = create(idle_timeout=7)
    updated = lifecycle.update(
        "a", {"backend_options": {"model": "/b.gguf"}}, cause="test"
    ).instance
    assert updated.port == created.port
    assert updated.options["idle_timeout"] == 0
    assert updated.options["backend_options"] == {"model": "/b.gguf"}
    assert updated.generation == 0


WHOLE: dict[str, Any] = {
    "backend_type": "llama_cpp",
    "backend_options": {"model": "/models/a.gguf", "extra_args": {"x": "1", "y": "2"}},
    "environment": {"A": "1", "B": "2"},
    "limits": {"nice": 5},
    "working_directory": "/srv",
    "command_override": "/opt/llama-server",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"idle_timeout": 9},
        {"pinned": True},
        {"group": "large"},
        {"on_demand_start": False},
        {"auto_restart": False},
        {"max_restarts": 9},
        {"restart_delay": 9},
        # The same in other words:
        {"docker_enabled": False, "idle_timeout": 9},
        {"environment": {"B": "2", "A": "1"}, "idle_timeout": 9},
        {
            "backend_options": {"extra_args": {"y": "2", "x": "1"}, "m": "/models/a.gguf"},
            "group": "g",
        },
    ],
)
def test_update_of_what_is_not_launched_restarts_nothing(changes: dict[str, Any]) -> None:
    create(**WHOLE)
    lifecycle.request_start("a", cause="test")
    update = lifecycle.update("a", WHOLE | changes, cause="test")
    assert (update.is_changed, update.is_restarted) == (True, False)
    assert update.instance.generation == 1
    assert lifecycle.get("a").options == update.instance.options


@pytest.mark.parametrize(
    "changes",
    [
        {"backend_options": {"model": "/models/b.gguf"}},
        {"backend_options": {"model": "/models/a.gguf", "extra_args": {"x": "1"}}},
        {"backend_type": "vllm", "backend_options": {"model": "o/m"}},
        {"environment": {"A": "1"}},
        {"limits": {"nice": 6}},
        {"limits": {}},
        {"working_directory": ""},
        {"command_override": ""},
        {"docker_enabled": True},
    ],
)
def test_update_of_what_is_launched_restarts_a_running_instance(changes: dict[str, Any]) -> None:
    create(**WHOLE)
    assert not lifecycle.update("a", WHOLE | {"group": "g"}, cause="test").is_restarted
    lifecycle.request_start("a", cause="test")
    update = lifecycle.update("a", WHOLE | {"group": "g"} | changes, cause="test")
    assert (update.is_changed, update.is_restarted) == (True, True)
    assert update.instance.generation == 2


def test_update_to_another_port_restarts_a_running_instance() -> None:
    port = create().port
    lifecycle.request_start("a", cause="test")
    shown = {"backend_options": {"model": "/models/a.gguf", "port": port + 7}}
    assert lifecycle.update("a", shown, cause="test").is_restarted
    assert lifecycle.get("a").port == port + 7


def test_update_without_a_change_writes_and_announces_nothing() -> None:
    create(**WHOLE)
    lifecycle.request_start("a", cause="test")
    before = (Instance.objects.values().get(), Revision.numbers())
    for document in (WHOLE, {**lifecycle.get("a").options}):
        update = lifecycle.update("a", document, cause="test")
        assert (update.is_changed, update.is_restarted) == (False, False)
    assert (Instance.objects.values().get(), Revision.numbers()) == before


def test_one_is_not_the_same_as_true() -> None:
    create(backend_options={"extra_args": {"flag": 1}})
    lifecycle.request_start("a", cause="test")
    other = {"backend_options": {"extra_args": {"flag": True}}}
    assert lifecycle.update("a", other, cause="test").is_restarted


@pytest.mark.parametrize("missing", [{}, {"backend_options": None}, {"backend_type": "vllm"}])
def test_update_keeps_the_backend_and_its_options_where_they_are_left_out(
    missing: dict[str, object],
) -> None:
    options = {"model": "org/m", "tensor_parallel_size": 2}
    create(backend_type="vllm", backend_options=options)
    updated = lifecycle.update("a", {"idle_timeout": 5, **missing}, cause="test").instance
    assert updated.options["backend_type"] == "vllm"
    assert updated.options["backend_options"] == options
    lifecycle.update("a", {"backend_options": {"model": "org/m2"}}, cause="test")
    assert lifecycle.get("a").options["backend_type"] == "vllm"


def test_update_to_another_backend_needs_its_options() -> None:
    create()
    with pytest.raises(InvalidInstance, match="backend_options must be given with another"):
        lifecycle.update("a", {"backend_type": "vllm"}, cause="test")


@pytest.mark.parametrize("blank", [None, ""])
def test_blank_backend_type_is_refused_and_changes_nothing(blank: object) -> None:
    with pytest.raises(LlamactlError, match="backend_type must be one of llama_cpp"):
        create(backend_type=blank)
    before = create().options
    with pytest.raises(LlamactlError, match="backend_type must be one of llama_cpp"):
        lifecycle.update("a", {**MODEL, "backend_type": blank}, cause="test")
    assert lifecycle.get("a").options == before


def test_options_that_get_shows_can_be_put_back_without_pinning_the_port() -> None:
    port = create().port
    shown = {**MODEL, "backend_options": {"model": "/models/a.gguf", "port": port}}
    updated = lifecycle.update("a", shown, cause="test").instance
    assert "port" not in updated.options["backend_options"]


def test_update_to_another_instances_port_is_refused_and_changes_nothing() -> None:
    first, second = create("a"), create("b")
    with pytest.raises(PortUnavailable):
        lifecycle.update("b", {"backend_options": {"port": first.port}}, cause="test")
    assert Instance.objects.get(name="b").options == second.options


def test_delete_is_refused_while_it_runs_or_is_about_to() -> None:
    instance = create()
    lifecycle.request_start("a", cause="test")
    with pytest.raises(InstanceBusy):
        lifecycle.delete("a", cause="test")
    observe(instance, status=Status.SHUTTING_DOWN, pid=1, desired_state=DesiredState.STOPPED)
    with pytest.raises(InstanceBusy):
        lifecycle.delete("a", cause="test")


def test_failed_or_stopped_instance_can_be_deleted() -> None:
    instance = create()
    lifecycle.request_start("a", cause="test")
    observe(instance, status=Status.FAILED, observed_generation=1)
    lifecycle.delete("a", cause="test")
    with pytest.raises(InstanceNotFound):
        lifecycle.get("a")


def test_every_request_increases_the_revision_that_web_processes_poll() -> None:
    numbers = [Revision.numbers()["instances"]]
    create()
    numbers.append(Revision.numbers()["instances"])
    lifecycle.request_start("a", cause="test")
    numbers.append(Revision.numbers()["instances"])
    lifecycle.request_stop("a", cause="test")
    numbers.append(Revision.numbers()["instances"])
    lifecycle.delete("a", cause="test")
    numbers.append(Revision.numbers()["instances"])
    assert numbers == sorted(set(numbers))


@pytest.mark.django_db(transaction=True)
def test_concurrent_creates_get_different_ports() -> None:
    def one(number: int) -> int:
        try:
            return create(f"i{number}").port
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        ports = list(pool.map(one, range(24)))
    assert len(set(ports)) == 24


@pytest.mark.django_db(transaction=True)
def test_rolled_back_request_wakes_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr(lifecycle, "wake_node", woken.append)
    create()
    with transaction.atomic():
        lifecycle.request_start("a", cause="test")
        transaction.set_rollback(True)
    assert woken == []
    lifecycle.request_start("a", cause="test")
    assert woken == ["main"]


def test_transition_is_won_by_one_of_two_that_read_the_same_status() -> None:
    create()
    first, second = Instance.objects.get(name="a"), Instance.objects.get(name="a")
    assert first.transition(Status.STARTING, cause="test")
    assert not second.transition(Status.STARTING, cause="test")
    assert first.history.count() == 1


def test_illegal_transition_is_a_mistake_in_the_code() -> None:
    with pytest.raises(ValueError, match="not a legal transition"):
        create().transition(Status.RUNNING, cause="test")


def test_options_with_unknown_top_level_keys_are_taken_as_in_the_seed() -> None:
    assert create(future_option=1).name == "a"


def test_group_is_kept() -> None:
    assert create(group="large").options["group"] == "large"
    with pytest.raises(LlamactlError):
        create("b", group=3)
    assert InvalidInstance.status == 400


@pytest.mark.parametrize(
    "host", ["\u2028", "evil.com/x?", "[::1", "user@evil", "127.0.0.1:99", "a b", "é", "a" * 300]
)
def test_host_that_can_be_no_address_is_refused(host: str) -> None:
    with pytest.raises(LlamactlError, match="host"):
        create("a", backend_options={"model": "/m.gguf", "host": host})


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost", "gpu-1.lan"])
def test_host_that_is_an_address_or_a_name_is_taken(host: str) -> None:
    create("a", backend_options={"model": "/m.gguf", "host": host})


def test_origin_of_the_desired_state_is_kept() -> None:
    create()
    assert lifecycle.get("a").requested_by == ""
    lifecycle.request_start("a", cause="admin:bob")
    assert lifecycle.get("a").requested_by == "admin:bob"
    # It is wanted already: nothing was asked for that was not.
    lifecycle.request_start("a", cause="api")
    assert lifecycle.get("a").requested_by == "admin:bob"
    lifecycle.request_stop("a", cause="api")
    assert lifecycle.get("a").requested_by == "api"


def test_a_start_by_hand_takes_over_one_that_only_requests_wait_for() -> None:
    create()
    lifecycle.request_start("a", cause=ON_DEMAND)
    instance = lifecycle.request_start("a", cause="api")
    assert (instance.requested_by, instance.generation) == ("api", 1)
    # And a request takes over nothing.
    assert lifecycle.request_start("a", cause=ON_DEMAND).requested_by == "api"


def test_an_operators_stop_wins_over_the_supervisors_while_that_is_under_way() -> None:
    instance = create()
    evicted = {"desired_state": DesiredState.STOPPED, "requested_by": EVICTED, "generation": 1}
    observe(instance, status=Status.SHUTTING_DOWN, observed_generation=1, **evicted)
    assert lifecycle.request_stop("a", cause="api").requested_by == "api"
    observe(instance, status=Status.STOPPED, requested_by=EVICTED)
    assert lifecycle.request_stop("a", cause="api").requested_by == EVICTED


def test_two_concurrent_starts_do_not_both_get_the_last_capacity(override: Any) -> None:
    override(instances={"max_running_instances": 1})
    create("a", pinned=True)
    create("b")
    lifecycle.request_start("a", cause="api")
    # It is not running yet, and never preempted: it is pinned.
    with pytest.raises(NoCapacity) as refused:
        lifecycle.request_start("b", cause="api")
    assert "max_running_instances (1) is reached; waiting for a" in refused.value.details
    lifecycle.request_stop("a", cause="api")
    assert lifecycle.request_start("b", cause="api").should_run


@pytest.mark.parametrize("options", [{}, {"idle_timeout": 0}, {"idle_timeout": 5}])
def test_start_that_preemption_can_serve_is_accepted(override: Any, options: Any) -> None:
    override(instances={"max_running_instances": 1})
    create("a", **options)
    create("b", **options)
    lifecycle.request_start("a", cause="api")
    assert lifecycle.request_start("b", cause="api").should_run


def test_restart_of_a_running_instance_needs_no_more_capacity(override: Any) -> None:
    override(instances={"max_running_instances": 1})
    create("a")
    lifecycle.request_start("a", cause="api")
    assert lifecycle.request_restart("a", cause="api").generation == 2


def test_groups_have_limits_of_their_own(override: Any) -> None:
    override(instances={"group_limits": {"big": 1}})
    create("a", group="big", pinned=True)
    create("b", group="big")
    create("c", group="small")
    create("d")
    for name in ("a", "c", "d"):
        lifecycle.request_start(name, cause="api")
    with pytest.raises(NoCapacity, match=r"group_limits big \(1\)"):
        lifecycle.request_start("b", cause="api")


@pytest.mark.parametrize(
    "change",
    [
        {"backend_options": {"model": "m", "api_prefix": "/x"}},
        {"backend_options": {"model": "m"}, "environment": {"LLAMA_ARG_API_PREFIX": "/x"}},
    ],
)
def test_options_that_move_the_address_are_not_saved(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidBackendOptions):
        lifecycle.create("moved", change, cause="test")
    lifecycle.create("kept", {"backend_options": {"model": "m"}}, cause="test")
    with pytest.raises(InvalidBackendOptions):
        lifecycle.update("kept", change, cause="test")
    assert [each.name for each in Instance.objects.all()] == ["kept"]


def test_a_config_that_moves_the_address_is_refused_at_save(
    override: Callable[..., AppConfig],
) -> None:
    backend = current().backends.llama_cpp.model_copy(update={"args": ["--api-prefix", "/x"]})
    override(backends={"llama_cpp": backend})
    with pytest.raises(InvalidBackendOptions, match=r"--api-prefix in backends\.llama-cpp\.args"):
        lifecycle.create("moved", {"backend_options": {"model": "m"}}, cause="test")


def test_instance_of_a_node_without_a_worker_is_refused_until_the_worker_reports(
    settings: Any,
) -> None:
    nodes = {**current().nodes, "gpu-2": NodeConfig(address="http://gpu-2:8080")}
    settings.LLAMACTL = current().model_copy(update={"nodes": nodes})
    with pytest.raises(InvalidInstance, match="no worker of node 'gpu-2' has reported yet"):
        create(nodes=["gpu-2"])
    assert not Instance.objects.exists()
    write_heartbeat("gpu-2")
    create(nodes=["gpu-2"])
    assert lifecycle.request_start("a", cause="test").should_run
    lifecycle.request_stop("a", cause="test")
    # Saved by an earlier release, before the worker reported:
    Node.objects.filter(name="gpu-2").update(heartbeat_at=None)
    with pytest.raises(InvalidInstance, match="no worker of node 'gpu-2'"):
        lifecycle.request_start("a", cause="test")
