"""JSON-valued flags: checked when they are saved, not by a program that ends at its start."""

from __future__ import annotations

import pytest

from instances.backends.base import Backend
from instances.backends.command_errors import CommandError
from instances.backends.flags import Flag, FlagType
from instances.backends.registry import BACKENDS, backend_for
from instances.backends.values import InvalidBackendOptions
from instances.preflight.flags import check_json

JSON_FLAGS = [
    (backend, flag)
    for backend in BACKENDS.values()
    for flag in backend.table.flags.values()
    if flag.kind is FlagType.JSON
]


def flag_id(value: object) -> str:
    return value.name if isinstance(value, Flag) else ""


@pytest.mark.parametrize(("backend", "flag"), JSON_FLAGS, ids=flag_id)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"{\"a\": true}", "leave out the backslashes"),
        ("{“a”: true}", "“ (U+201C, left double quotation mark)"),
        ("{'a': 1}", "JSON has double quotes"),
        ('{"a": True}', "Expecting value"),
        ('{"a": 1', "delimiter"),
        ('{"a":\u00a01}', "U+00A0"),
        ("[" * 50_000, "nested too deeply"),
        ("{'" + "\\" * 500 + '"' + "x" * 100_000, "Expecting"),  # took a minute
    ],
)
def test_a_value_that_is_no_json_is_refused_with_its_reason(
    backend: Backend, flag: Flag, text: str, reason: str
) -> None:
    with pytest.raises(InvalidBackendOptions) as caught:
        backend.normalise({flag.name: text})
    assert f"backend_options.{flag.name} must be JSON" in caught.value.details
    assert reason in caught.value.details


@pytest.mark.parametrize(("backend", "flag"), JSON_FLAGS, ids=flag_id)
def test_json_in_every_form_is_taken(backend: Backend, flag: Flag) -> None:
    for value in ('{"a": true}', ' {\n"a": [1, null]}', {"a": True}, [1, 2], '["a"]'):
        assert flag.name in backend.normalise({flag.name: value})


def test_another_form_is_taken_with_a_warning_where_the_program_may_take_it() -> None:
    vllm = backend_for("vllm")
    options = vllm.normalise({"limit_mm_per_prompt": "image=16,video=2", "hf_overrides": "{}"})
    (finding,) = check_json(vllm, options)
    assert finding.field == "backend_options.limit_mm_per_prompt"
    assert not finding.is_error
    assert "is no JSON" in finding.text


def test_a_pasted_command_is_refused_by_its_flag() -> None:
    command = r"""llama-server -m a.gguf --chat-template-kwargs '{\"a\": true}'"""
    with pytest.raises(CommandError, match="--chat-template-kwargs must be JSON"):
        backend_for("llama_cpp").parse_command(command)
    options = (
        backend_for("llama_cpp")
        .parse_command(r"""llama-server -m a.gguf --chat-template-kwargs "{\"a\": true}" """)
        .backend_options
    )
    assert options["chat_template_kwargs"] == '{"a": true}'
