"""A dry run says what would be started, and is believed only if the supervisor starts just that."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from instances import launch, lifecycle
from instances.dry_run import command_line_of, dry_run_create, dry_run_update
from instances.errors import InstanceNotFound, InvalidInstance, InvalidInstanceName, PortOutOfRange
from instances.models import Instance
from instances.states import DesiredState, Status
from instances.supervisor.controller import spawn
from instances.supervisor.state.rows import Row
from llamactl.config import current
from nodes.models import Node
from tests.instances.preflight.test_check import with_node

pytestmark = pytest.mark.django_db


def document(**options: Any) -> dict[str, Any]:
    return {"backend_options": {"model": "/models/m.gguf", **options}}


def row_of(instance: Instance) -> Row:
    return Row(
        id=instance.pk,
        name=instance.name,
        desired_state=DesiredState(instance.desired_state),
        generation=instance.generation,
        requested_by=instance.requested_by,
        options=instance.options,
        port=instance.port,
        status=Status(instance.status),
        observed_generation=instance.observed_generation,
        pid=None,
        pid_started_ticks=None,
        launch_id="",
        restarts=0,
        revision=0,
        updated_at=instance.updated_at,
        ready_at=None,
        last_used_at=None,
        queue=None,
    )


@pytest.mark.parametrize(
    "options",
    [
        document(ctx_size=512, extra_args={"new_flag": "a b"}),
        document() | {"docker_enabled": True},
        document() | {"command_override": "/bin/echo", "environment": {"A": "1"}},
        {"backend_type": "vllm", "command_override": "/bin/echo"},
    ],
)
def test_command_is_the_one_that_the_supervisor_runs(options: dict[str, Any]) -> None:
    rehearsed = dry_run_create("x", options)
    assert not Instance.objects.exists()
    plan = spawn.plan(row_of(lifecycle.create("x", options, cause="test")), current(), "key")
    assert tuple(rehearsed.command) == launch.executed(plan.launch)
    assert shlex.split(rehearsed.command_line)[-len(rehearsed.command) :] == rehearsed.command
    assert set(rehearsed.environment) == set(plan.launch.environment)
    assert rehearsed.working_directory == str(current().data_dir)


def test_a_dry_run_names_the_inherited_variables_without_their_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "64")
    options = document() | {
        "command_override": "/bin/echo",
        "environment": {"CUDA_VISIBLE_DEVICES": "1"},
    }
    told = dry_run_create("x", options).to_document()
    inherited = told["inherited_environment"]
    assert isinstance(inherited, list)
    assert {"HF_TOKEN", "PATH"} <= set(inherited)
    # Not the one that the instance sets itself, nor a flag in disguise.
    assert not {"CUDA_VISIBLE_DEVICES", "LLAMA_ARG_CTX_SIZE"} & set(inherited)
    assert "s3cret" not in str(told)


def test_nothing_secret_is_shown() -> None:
    options = document(api_key="s3cret", hf_token="s3cret", extra_args={"my-token": "s3cret"}) | {
        "environment": {"MY_API_KEY": "s3cret", "PROXY": "http://me:s3cret@host/", "A": "b c"}
    }
    rehearsed = dry_run_create("x", options)
    told = f"{rehearsed.command} {rehearsed.command_line} {rehearsed.environment}"
    assert "s3cret" not in told
    assert rehearsed.environment["A"] == "b c"
    assert rehearsed.environment["MY_API_KEY"] == "***"
    assert rehearsed.environment["LLAMA_API_KEY"] == "***"
    assert rehearsed.command_line.startswith("A='b c' ")


def test_environment_of_the_configuration_is_masked(override: Any) -> None:
    config = current()
    llama_cpp = config.backends.llama_cpp.model_copy(update={"environment": {"ODD": "s3cret"}})
    override(backends={"llama_cpp": llama_cpp})
    rehearsed = dry_run_create("x", document())
    assert rehearsed.environment["ODD"] == "***"
    assert "s3cret" not in rehearsed.command_line


def test_port_is_the_one_it_would_get() -> None:
    low = current().instances.port_range[0]
    lifecycle.create("other", {}, cause="test")
    assert dry_run_create("x", document()).options["backend_options"]["port"] == low + 1  # type: ignore[index]
    kept = dry_run_create("other", document())
    assert kept.options["backend_options"]["port"] == low  # type: ignore[index]
    with pytest.raises(PortOutOfRange):
        dry_run_create("x", document(port=1))


def test_dry_run_of_an_update_needs_an_existing_instance() -> None:
    with pytest.raises(InstanceNotFound):
        dry_run_update("x", document())
    lifecycle.create("x", document(), cause="test")
    rehearsed = dry_run_update("x", document(ctx_size=1))
    assert "--ctx-size" in rehearsed.command
    assert "ctx_size" not in Instance.objects.get().options["backend_options"]


def test_name_that_can_be_none_is_refused() -> None:
    with pytest.raises(InvalidInstanceName):
        dry_run_create("a b", document())


def test_program_that_is_missing_is_shown_as_it_was_meant() -> None:
    rehearsed = dry_run_create("x", document() | {"command_override": "/nonexistent/server"})
    assert rehearsed.command[0] == "/nonexistent/server"
    assert [f.field for f in rehearsed.findings if f.is_error] == [
        "backend_options.model",
        "command_override",
    ]


def test_other_node_is_rehearsed_with_a_warning(override: Any, settings: Any) -> None:
    settings.LLAMACTL = with_node(override)
    Node.objects.create(name="far", heartbeat_at=timezone.now())
    rehearsed = dry_run_create("x", document() | {"nodes": ["far"]})
    assert rehearsed.command[0] == "llama-server"
    assert [finding.field for finding in rehearsed.findings] == ["nodes"]


@pytest.mark.parametrize("has_row", [False, True])
def test_a_node_without_a_worker_is_refused_as_by_a_save(
    override: Any, settings: Any, has_row: bool
) -> None:
    settings.LLAMACTL = with_node(override)
    if has_row:
        Node.objects.create(name="far")
    errors = []
    for function in (dry_run_create, partial(lifecycle.create, cause="test")):
        with pytest.raises(InvalidInstance, match="no worker of node 'far'") as raised:
            function("x", document() | {"nodes": ["far"]})
        errors.append(raised.value.details)
    assert errors[0] == errors[1]
    assert Node.objects.filter(name="far").count() == has_row


def test_command_line_of_a_saved_instance(tmp_path: Path) -> None:
    instance = lifecycle.create("x", document(hf_token="s3cret"), cause="test")
    assert "--model /models/m.gguf" in command_line_of(instance)
    assert "s3cret" not in command_line_of(instance)
    instance.options = {"damaged": True}
    assert command_line_of(instance) == ""
