"""Pasted command lines, as options and back."""

from __future__ import annotations

import contextlib
import json
import shlex
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from instances.backends.base import Backend
from instances.backends.command_errors import (
    CommandError,
    CommandSyntaxError,
    EmptyCommand,
    WrongArity,
    WrongCommand,
)
from instances.backends.registry import BACKENDS, backend_for
from instances.backends.values import InvalidBackendOptions
from llamactl.core.error_format import seed_document
from tests.instances.backends.options_strategies import PROSE, TRICKY, options_of
from tests.instances.backends.real_commands import REAL_COMMANDS
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "parse_vectors.json").read_text(encoding="utf-8"))

# The seed's vectors with an outcome that is a defect for users, and our outcome instead.
BETTER: dict[str, dict[str, Any]] = {
    "--override-tensor keeps quotes in a multi value": {"override_tensor": ["exps=CPU", "b=CUDA0"]},
    "vllm: short flags have no aliases": {"model": "m", "tensor_parallel_size": 2},
    "-fa alone is silently lost": {"model": "a.gguf", "flash_attn": "on"},
    "negative value after space is lost": {"model": "a.gguf", "predict": -1},
    "negative value after space on a canonical int flag is an error": {
        "model": "a.gguf",
        "threads": -1,
    },
    "vllm: lora_modules is multi-valued for the parser but a string field: always an error": {
        "model": "m",
        "lora_modules": ["a=b"],
    },
    "unknown numeric flag >= 1e6 is mangled in extra_args": {
        "model": "a.gguf",
        "extra_args": {"yarn_max": "1048576"},
    },
    "unknown executable becomes positional model": {"ctx_size": 512},
    "numeric value for a string field is an error": {"model": "a.gguf", "alias": "7"},
    "numeric value for a string field through an alias is silently lost": {
        "model": "a.gguf",
        "alias": "7",
    },
    # llama-server took the bare flag until August 2025, with the meaning "on".
    "bool into string field: --flash-attn alone": {"model": "a.gguf", "flash_attn": "on"},
    "quoted value containing a space is split: the test suite only has a quoted value without"
    " spaces": {"model": "a.gguf", "chat_template": "hello world"},
}


def vector_id(vector: dict[str, Any]) -> str:
    return f"{vector['backend_type']}-{vector['name']}"


@pytest.mark.parametrize("vector", VECTORS["parse_command"], ids=vector_id)
def test_a_seed_vector_parses_as_it_does_there_or_better(vector: dict[str, Any]) -> None:
    backend = backend_for(vector["backend_type"])
    if vector["name"] in BETTER:
        # It should avoid the seed's defect.
        assert vector["source"].startswith("derived-from-code")
        assert backend.parse_command(vector["command"]).backend_options == BETTER[vector["name"]]
        return
    if vector.get("expect_error"):
        with pytest.raises(CommandError) as caught:
            backend.parse_command(vector["command"])
        assert caught.value.status == 400
        expected = "invalid_command" if not vector["command"].strip() else "parse_error"
        assert caught.value.code == expected
        return
    options = backend.parse_command(vector["command"]).backend_options
    for name, value in vector.get("expect_options_subset", {}).items():
        assert options[name] == value
    if "expect_extra_args" in vector:
        assert options["extra_args"] == vector["expect_extra_args"]


@pytest.mark.parametrize(("backend_type", "command", "options", "environment"), REAL_COMMANDS)
def test_a_command_from_a_readme_is_understood(
    backend_type: str, command: str, options: dict[str, Any], environment: dict[str, str]
) -> None:
    parsed = backend_for(backend_type).parse_command(command)

    assert parsed.backend_options == options
    assert parsed.environment == environment


@pytest.mark.parametrize(("backend_type", "command", "options", "environment"), REAL_COMMANDS)
def test_a_command_from_a_readme_survives_being_built_again(
    backend_type: str, command: str, options: dict[str, Any], environment: dict[str, str]
) -> None:
    assert again(backend_for(backend_type), options) == options


def again(backend: Backend, options: dict[str, Any]) -> dict[str, object]:
    """Options built into a command line and parsed from it."""
    program = list(backend.programs.commands[0])
    return backend.parse_command(
        shlex.join([*program, *backend.build_args(options)])
    ).backend_options


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda backend: backend.type)
@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_parsing_is_the_inverse_of_building(backend: Backend, data: st.DataObject) -> None:
    raw = data.draw(options_of(backend))
    try:
        options = backend.normalise(raw)
    except InvalidBackendOptions as error:
        assume("must be a value, got the flag" not in error.details)
        raise

    assert again(backend, options) == options
    # It should be in normal form already.
    assert backend.normalise(options) == options


def words_for(backend: Backend) -> st.SearchStrategy[list[str]]:
    """Words as in command lines, sensible or not."""
    spellings = sorted(backend.table._by_spelling)
    return st.lists(
        st.one_of(
            st.sampled_from(spellings),
            st.sampled_from(spellings).map(lambda spelling: f"{spelling}=7"),
            st.sampled_from(["--unknown", "--un_known=1", "-zz", "--a.b_c", "true", "7", "-1.5"]),
            PROSE | TRICKY,
        ),
        max_size=8,
    )


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda backend: backend.type)
@given(data=st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_building_and_parsing_keep_the_options(backend: Backend, data: st.DataObject) -> None:
    command = shlex.join(data.draw(words_for(backend)))
    try:
        options = backend.parse_command(command).backend_options
    except CommandError:
        return

    assert again(backend, options) == options


@given(st.text(max_size=80))
@settings(deadline=None)
def test_any_text_is_parsed_or_refused(command: str) -> None:
    for backend in BACKENDS.values():
        # It should never fail in another way.
        with contextlib.suppress(CommandError):
            backend.parse_command(command)


@pytest.mark.parametrize("command", ["", "  \n\t ", "FOO=bar", "env A=1", "# only a comment"])
def test_an_empty_command_is_told_from_a_wrong_one(command: str) -> None:
    with pytest.raises(EmptyCommand) as caught:
        backend_for("llama_cpp").parse_command(command)

    assert seed_document(caught.value) == {
        "error": "invalid_command",
        "details": "Command cannot be empty",
    }


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ("llama-server -m 'a.gguf", CommandSyntaxError, "unterminated quoted string"),
        ('llama-server -m "a.gguf\\"', CommandSyntaxError, "unterminated quoted string"),
        ("llama-server ---model x", CommandSyntaxError, "malformed flag: '---model'"),
        ("llama-server --", CommandSyntaxError, "malformed flag"),
        ("llama-server --=x", CommandSyntaxError, "malformed flag"),
        ("llama-server -m a\x00b", CommandSyntaxError, "NUL"),
        ("llama-server -m " + "x" * 65_536, CommandSyntaxError, "at most 65536 characters"),
        ("llama-server -m a.gguf | tee log", CommandSyntaxError, "for a shell"),
        ("llama-server -m a.gguf > log", CommandSyntaxError, "for a shell"),
        ("llama-server -m", WrongArity, "-m takes a value, but the command ends there"),
        ("llama-server --model --jinja", WrongArity, "--model takes a value, but '--jinja'"),
        ("llama-server --jinja=5", WrongArity, "--jinja takes no value"),
        ("llama-server --control-vector-layer-range 1", WrongArity, "takes a value"),
        ("llama-server -m my model.gguf", WrongCommand, "a value with blanks needs quotes"),
        ("llama-server a.gguf -m b.gguf", WrongCommand, "the model is already 'b.gguf'"),
        ("ollama run llama3", WrongCommand, "expected 'llama-server'"),
        ("llama-cli -m a.gguf", WrongCommand, "'llama-cli' is not the program"),
        ("llama-server --ctx-size lots", CommandError, "--ctx-size must be a whole number"),
        ("llama-server --port 70000", CommandError, "--port must be between 0 and 65535"),
        ("llama-server -m 'a\nb'", CommandError, "control characters"),
        ("llama-server --foo=-x", CommandError, "must not begin with a dash"),
        ("llama-server -m it\u2019s", CommandSyntaxError, "U+2019"),
        ("llama-server -m a\u201db", CommandSyntaxError, "U+201D"),
        ("llama-server -m \u201ca.gguf", CommandSyntaxError, "U+201C"),
        ("llama-server -m ${srv}", CommandSyntaxError, "'${srv}' is for a shell"),
        ("llama-server -m ${srv:-a b}", CommandSyntaxError, "'${srv:-a' is for a shell"),
        ("llama-server -m $HOME/a.gguf", CommandSyntaxError, "'$HOME' is for a shell"),
        ('llama-server -m "$HOME/a.gguf"', CommandSyntaxError, "'$HOME' is for a shell"),
        ("llama-server -a $(hostname)", CommandSyntaxError, "'$(hostname)' is for a shell"),
        ("llama-server -a `hostname`", CommandSyntaxError, "'`hostname`' is for a shell"),
        ("A=$HOME llama-server", CommandSyntaxError, "'$HOME' is for a shell"),
        ("llama-server -m $env:HOME\\a.gguf", CommandSyntaxError, "'$env:HOME' is for a shell"),
        ("llama-server -m %HOME%\\a.gguf", CommandSyntaxError, "'%HOME%' is for a shell"),
        ("llama-server --host 0.0.0.0:${PORT}", WrongCommand, "'0.0.0.0:${PORT}' has the port"),
        ("llama-server -a ${PORT}", WrongCommand, "'${PORT}' has the port"),
        ("llama-server -m <path-to-model>", CommandSyntaxError, "stands for a value of yours"),
        ("llama-server -m a.gguf \u2026", CommandSyntaxError, "stands for a value of yours"),
    ],
)
def test_a_wrong_command_is_refused_with_its_reason(
    command: str, error: type[CommandError], message: str
) -> None:
    with pytest.raises(error) as caught:
        backend_for("llama_cpp").parse_command(command)

    assert caught.value.code == "parse_error"
    assert caught.value.status == 400
    assert message in caught.value.details


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("vllm chat --url x", "'vllm chat' is not the server"),
        ("vllm serve m --dtype --seed 1", "--dtype takes a value, but '--seed' follows"),
        ("vllm serve m --dtype -x", "--dtype takes a value, but '-x' follows"),
        ("vllm serve m --served-model-name --seed 1", "takes one or more values"),
        ("python -m vllm.entrypoints.api_server --model m", "is not the server"),
        ("vllm serve m --api-key '\x01'", "(hidden)"),
    ],
)
def test_a_wrong_vllm_command_is_refused_with_its_reason(command: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        backend_for("vllm").parse_command(command)

    assert message in caught.value.details


def test_an_error_shows_no_more_than_80_characters_of_a_value() -> None:
    with pytest.raises(CommandError) as caught:
        backend_for("llama_cpp").parse_command("llama-server --ctx-size " + "x" * 500)

    assert len(caught.value.details) < 200


def test_repeated_unknown_flags_become_a_list() -> None:
    backend = backend_for("llama_cpp")

    options = backend.parse_command("llama-server --foo a --foo --foo true -zz 1").backend_options

    assert options == {"extra_args": {"foo": ["a", True, "true"], "-zz": "1"}}
    assert backend.build_args(options) == [
        *("--foo", "a", "--foo", "--foo", "true"),
        *("-zz", "1"),
    ]


def test_the_last_of_two_contradicting_flags_counts() -> None:
    backend = backend_for("llama_cpp")

    assert backend.parse_command("llama-server --no-mmap --mmap").backend_options == {"mmap": True}
    assert backend.parse_command("llama-server --mmap --no-mmap").backend_options == {
        "no_mmap": True
    }


def test_a_line_break_in_a_chat_template_is_kept() -> None:
    backend = backend_for("llama_cpp")
    template = "{% for m in messages %}\n\t{{ m.content }}\n{% endfor %}"

    assert again(backend, {"chat_template": template}) == {"chat_template": template}
