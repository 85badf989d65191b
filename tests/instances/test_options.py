"""Instance options: parsing, defaults, and the document that is saved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.backends.registry import BACKENDS
from instances.limits import ResourceLimits
from instances.options import InstanceOptions
from llamactl.config import AppConfig, current
from llamactl.core.errors import LlamactlError

SHORTEST = (
    '{"backend_type": "llama_cpp", "backend_options": {}, "nodes": ["main"],'
    ' "auto_restart": true, "max_restarts": 3, "restart_delay": 5, "on_demand_start": true,'
    ' "idle_timeout": 0}'
)
FULL = (
    '{"backend_type": "vllm", "backend_options": {"model": "o/m", "tensor_parallel_size": 2},'
    ' "nodes": ["main"], "auto_restart": false, "max_restarts": 0, "restart_delay": 1,'
    ' "on_demand_start": false, "idle_timeout": 30, "environment": {"HF_HOME": "/hf"},'
    ' "docker_enabled": false, "command_override": "/opt/vllm", "group": "gpu",'
    ' "working_directory": "/srv", "limits": {"nice": 5, "cpus": "0-3,8", "core_dumps": false}}'
)
"""As the release before this model wrote them."""


def parse(document: object) -> InstanceOptions:
    return InstanceOptions.parse(document, current())


@pytest.mark.parametrize("saved", [SHORTEST, FULL])
def test_a_document_of_the_release_before_is_loaded_and_written_byte_for_byte(saved: str) -> None:
    document = json.loads(saved)
    assert json.dumps(InstanceOptions.from_document(document).to_document()) == saved
    assert json.dumps(parse(document).to_document()) == saved


documents = st.fixed_dictionaries(
    {},
    optional={
        "backend_type": st.sampled_from([None, "", *BACKENDS]),
        "backend_options": st.sampled_from([None, {}, {"model": "o/m", "port": 8001}]),
        "nodes": st.sampled_from([None, [], ["main"], ["main", "main"]]),
        "auto_restart": st.none() | st.booleans(),
        "max_restarts": st.none() | st.integers(-(10**30), 2**31 - 1),
        "idle_timeout": st.none() | st.integers(-5, 60),
        "environment": st.none() | st.dictionaries(st.from_regex(r"\A[A-Z_]+\Z"), st.just("x")),
        "docker_enabled": st.none() | st.booleans(),
        "command_override": st.sampled_from([None, "", "/opt/server"]),
        "group": st.sampled_from([None, "", "gpu"]),
        "working_directory": st.sampled_from([None, "", "/srv"]),
        "limits": st.sampled_from([None, {}, {"nice": 5, "cpus": [2, 1]}, {"core_dumps": False}]),
        "unknown": st.integers(),
    },
)


@given(documents)
def test_saving_and_loading_changes_nothing(document: dict[str, Any]) -> None:
    options = parse(document)
    saved = json.loads(json.dumps(options.to_document()))
    assert InstanceOptions.from_document(saved) == options
    assert parse(saved) == options
    assert "unknown" not in saved


def test_a_loaded_document_shares_no_container_with_the_row() -> None:
    row = json.loads(FULL)
    options = InstanceOptions.from_document(row)
    options.backend_options["model"] = "other"
    options.environment["A"] = "b"
    assert row == json.loads(FULL)
    assert InstanceOptions.from_document(json.loads(SHORTEST)).environment == {}


def test_a_document_with_a_value_that_is_refused_today_still_loads() -> None:
    saved = json.loads(SHORTEST) | {"backend_options": {"ctx_size": "many"}, "newer_option": 1}
    options = InstanceOptions.from_document(saved)
    assert options.backend_options == {"ctx_size": "many"}
    assert "newer_option" not in options.to_document()


@pytest.mark.parametrize("broken", [{}, {"nodes": ["main"]}, json.loads(SHORTEST) | {"nodes": 5}])
def test_a_document_of_another_shape_is_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        InstanceOptions.from_document(broken)


def test_null_is_the_same_as_a_missing_option() -> None:
    assert parse(dict.fromkeys(InstanceOptions.model_fields)) == parse({})


def test_negative_counts_become_zero() -> None:
    options = parse({"max_restarts": -1, "restart_delay": -1, "idle_timeout": -(10**30)})
    assert (options.max_restarts, options.restart_delay, options.idle_timeout) == (0, 0, 0)


def test_docker_is_dropped_for_a_backend_without_a_container() -> None:
    assert parse({"backend_type": "mlx_lm", "docker_enabled": True}).docker_enabled is None
    assert parse({"backend_type": "vllm", "docker_enabled": True}).docker_enabled is True


def test_command_override_is_dropped_with_docker() -> None:
    command = {"command_override": "/opt/server"}
    assert parse({**command, "docker_enabled": True}).command_override == ""
    assert parse({**command, "docker_enabled": False}).command_override == "/opt/server"


@pytest.mark.parametrize(
    ("document", "code", "details"),
    [
        ([], "invalid_request", "Invalid request body: expected a JSON object, got a list"),
        ({"group": 5}, "invalid_request", "group must be a string, got a number"),
        ({"max_restarts": True}, "invalid_request", "max_restarts must be a whole number, got"),
        ({"max_restarts": 2**31}, "invalid_instance", "max_restarts must be at most 2147483647"),
        ({"docker_enabled": 1}, "invalid_request", "docker_enabled must be true or false, got"),
        ({"group": "a\nb"}, "invalid_instance", "group must not contain control characters"),
        ({"environment": {"A": 1}}, "invalid_request", "environment.A must be a string, got"),
        ({"environment": {"1": ""}}, "invalid_instance", "environment: '1' is no variable name"),
        ({"working_directory": "x"}, "invalid_instance", "working_directory must be an absolute"),
        ({"nodes": ["gpu-9"]}, "invalid_instance", "node 'gpu-9' not found; known nodes: main"),
        ({"nodes": [1]}, "invalid_request", "nodes.0 must be a string, got a number"),
        ({"limits": []}, "invalid_request", "limits must be an object, got a list"),
        ({"limits": {"nice": "5"}}, "invalid_request", "limits.nice must be a whole number, got"),
        ({"limits": {"nice": 20}}, "invalid_instance", "limits.nice must be at most 19, got 20"),
        (
            {"limits": {"mice": 2}},
            "invalid_instance",
            "limits: 'mice' is not known; there are",
        ),
    ],
)
def test_a_refusal_names_the_option_the_rule_and_the_value(
    document: object, code: str, details: str
) -> None:
    with pytest.raises(LlamactlError) as refused:
        parse(document)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert refused.value.details.startswith(details)
    assert len(refused.value.details) < 300


def test_limits_that_are_not_set_are_the_workers() -> None:
    assert parse({}).limits == ResourceLimits()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("\u2013gpus all", "U+2013, en dash"),
        ("--gpus all \u2014rm", "U+2014, em dash"),
        ("--gpus\u00a0all", "U+00A0, no-break space"),
        ("-e A=\u201cx\u201d", "U+201C, left double quotation mark"),
        ("-v /m\u200b:/m", "U+200B, zero width space"),
    ],
)
def test_a_character_of_a_web_page_in_the_arguments_of_docker_is_named(
    config: AppConfig, text: str, named: str
) -> None:
    with pytest.raises(LlamactlError, match="docker_args") as raised:
        InstanceOptions.parse({"docker_args": text}, config)
    assert named in raised.value.details
    kept = "-l 'owner=Ann\u2019s \u2013 lab' -v /m:/m"
    assert InstanceOptions.parse({"docker_args": kept}, config).docker_args == kept
