"""Pasted commands: words, options, and back."""

from __future__ import annotations

import contextlib
import json
import shlex
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from instances.backends import BACKENDS, Backend, CommandError, InvalidBackendOptions, backend_for
from instances.backends.command_errors import (
    CommandSyntaxError,
    EmptyCommand,
    WrongArity,
    WrongCommand,
)
from instances.backends.shell_words import split
from llamactl.core.error_format import seed_document
from tests.instances.backends.options_strategies import PROSE, TRICKY, options_of
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "parse_vectors.json").read_text(encoding="utf-8"))

# The seed's vectors whose outcome is a defect that a user would mind; what we do instead.
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
    # llama-server took the bare flag until August 2025; what was meant is "on".
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
        # It should do what the seed's users would have wanted.
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


REAL_COMMANDS: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    (
        "llama_cpp",
        "llama-server -m models/7B/ggml-model.gguf -c 2048",
        {"model": "models/7B/ggml-model.gguf", "ctx_size": 2048},
        {},
    ),
    (
        "llama_cpp",
        "./llama-server -hf ggml-org/gemma-3-1b-it-GGUF:Q4_K_M --port 8080 --jinja -fa on",
        {
            "hf_repo": "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M",
            "port": 8080,
            "jinja": True,
            "flash_attn": "on",
        },
        {},
    ),
    (
        "llama_cpp",
        """CUDA_VISIBLE_DEVICES=0,1 LLAMA_CACHE="/data/my cache" \\
  ./build/bin/llama-server \\
    --model "/models/Qwen3 235B/Qwen3-235B-A22B-Q4_K_M-00001-of-00003.gguf" \\
    --n-gpu-layers 99 \\
    --override-tensor ".ffn_.*_exps.=CPU" \\
    -ot 'blk\\.(1|2)\\.attn_.*=CUDA0' \\
    -ctk q8_0 -ctv q8_0 \\
    --chat-template-kwargs '{"enable_thinking": false}' \\
    -np 4 -b 4096 -ub 1024 --temp 0.6 --top-p 0.95 --min-p 0 --no-mmap \\
""",
        {
            "model": "/models/Qwen3 235B/Qwen3-235B-A22B-Q4_K_M-00001-of-00003.gguf",
            "gpu_layers": 99,
            "override_tensor": [".ffn_.*_exps.=CPU", r"blk\.(1|2)\.attn_.*=CUDA0"],
            "cache_type_k": "q8_0",
            "cache_type_v": "q8_0",
            "chat_template_kwargs": '{"enable_thinking": false}',
            "parallel": 4,
            "batch_size": 4096,
            "ubatch_size": 1024,
            "temp": 0.6,
            "top_p": 0.95,
            "min_p": 0,
            "no_mmap": True,
        },
        {"CUDA_VISIBLE_DEVICES": "0,1", "LLAMA_CACHE": "/data/my cache"},
    ),
    (
        "llama_cpp",
        "llama-server -m big.gguf -md small.gguf --draft-max 16 --draft-p-min 0.9 -ngld all"
        " -ngl all -s -1 -n -2",
        {
            "model": "big.gguf",
            "model_draft": "small.gguf",
            "draft_max": 16,
            "draft_p_min": 0.9,
            "gpu_layers_draft": "all",
            "gpu_layers": "all",
            "seed": -1,
            "predict": -2,
        },
        {},
    ),
    (
        "llama_cpp",
        "llama serve --embedding --pooling cls -ub 8192 -m bge.gguf --logit-bias 15043+1"
        " -l 15043-1 --control-vector-layer-range 1 30",
        {
            "embedding": True,
            "pooling": "cls",
            "ubatch_size": 8192,
            "model": "bge.gguf",
            "logit_bias": ["15043+1", "15043-1"],
            "control_vector_layer_range": "1 30",
        },
        {},
    ),
    (
        "llama_cpp",
        'C:\\llama\\llama-server.exe -m "C:\\models\\a b.gguf" --fim-qwen-1.5b-default'.replace(
            "C:\\llama\\", "'C:\\llama\\'"
        ),
        {"model": "C:\\models\\a b.gguf", "fim_qwen_1_5b_default": True},
        {},
    ),
    (
        "vllm",
        "vllm serve NousResearch/Meta-Llama-3-8B-Instruct --dtype auto --api-key token-abc123",
        {
            "model": "NousResearch/Meta-Llama-3-8B-Instruct",
            "dtype": "auto",
            "api_key": ["token-abc123"],
        },
        {},
    ),
    (
        "vllm",
        "VLLM_USE_V1=1 vllm serve meta-llama/Llama-2-7b-hf --enable-lora"
        " --lora-modules sql-lora=/loras/sql"
        """ '{"name": "b", "path": "/loras/b", "base_model_name": "x"}' --max-lora-rank 64""",
        {
            "model": "meta-llama/Llama-2-7b-hf",
            "enable_lora": True,
            "lora_modules": [
                "sql-lora=/loras/sql",
                '{"name": "b", "path": "/loras/b", "base_model_name": "x"}',
            ],
            "max_lora_rank": 64,
        },
        {"VLLM_USE_V1": "1"},
    ),
    (
        "vllm",
        "vllm serve Qwen/Qwen3-32B -tp 4 -pp 2 -O3 --max-model-len 32k --gpu-memory-utilization=.9"
        """ --hf-overrides '{"rope_scaling": {"factor": 4.0}}'"""
        """ --limit-mm-per-prompt '{"image":2,"video":0}' --no-enable-prefix-caching""",
        {
            "model": "Qwen/Qwen3-32B",
            "tensor_parallel_size": 4,
            "pipeline_parallel_size": 2,
            "optimization_level": 3,
            "max_model_len": "32k",
            "gpu_memory_utilization": 0.9,
            "hf_overrides": '{"rope_scaling": {"factor": 4.0}}',
            "limit_mm_per_prompt": '{"image":2,"video":0}',
            "enable_prefix_caching": False,
        },
        {},
    ),
    (
        "vllm",
        "python3 -m vllm.entrypoints.openai.api_server --model mistralai/Mistral-7B-v0.1"
        " --served-model-name mistral mistral-7b --seed -1",
        {
            "model": "mistralai/Mistral-7B-v0.1",
            "served_model_name": ["mistral", "mistral-7b"],
            "seed": -1,
        },
        {},
    ),
    (
        "vllm",
        "vllm serve m --speculative_config.method ngram --compilation-config.pass_config.fuse true"
        " -cc.mode=3",
        {
            "model": "m",
            "extra_args": {
                "speculative_config.method": "ngram",
                "compilation_config.pass_config.fuse": ["true"],
                "-cc.mode": "3",
            },
        },
        {},
    ),
    (
        "vllm",
        """vllm serve m --allowed-origins '["https://a.example","https://b.example"]'""",
        {"model": "m", "allowed_origins": ["https://a.example", "https://b.example"]},
        {},
    ),
    (
        "mlx_lm",
        "mlx_lm.server --model mlx-community/Mistral-7B-Instruct-v0.3-4bit --port 8080",
        {"model": "mlx-community/Mistral-7B-Instruct-v0.3-4bit", "port": 8080},
        {},
    ),
    (
        "mlx_lm",
        "python -m mlx_lm.server --model ./m --adapter-path 'my adapters'"
        """ --chat-template-args '{"enable_thinking":false}' --temp 0""",
        {
            "model": "./m",
            "adapter_path": "my adapters",
            "chat_template_args": '{"enable_thinking":false}',
            "temp": 0,
        },
        {},
    ),
    (
        "mlx_lm",
        "python3.12 -m mlx_lm server --model m --trust-remote-code --use-default-chat-template",
        {"model": "m", "trust_remote_code": True, "use_default_chat_template": True},
        {},
    ),
    (
        "mlx_lm",
        "# from the README\nexport HF_HOME=/data\nmlx_lm server --model m --draft-model d \\\r\n"
        "  --num-draft-tokens 2 # fast",
        {"model": "m", "draft_model": "d", "num_draft_tokens": 2},
        {"HF_HOME": "/data"},
    ),
]


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
def test_what_was_parsed_once_stays_the_same(backend: Backend, data: st.DataObject) -> None:
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


@given(st.lists(st.text(max_size=10), max_size=6))
def test_splitting_is_the_inverse_of_quoting(words: list[str]) -> None:
    assert split(shlex.join(words)) == words


@given(st.text(st.sampled_from("ab '\"\\$=-\t"), max_size=30))
def test_words_are_those_of_a_posix_shell(command: str) -> None:
    try:
        expected = shlex.split(command)
    except ValueError as error:
        if "escaped" in str(error):
            return  # a backslash at the very end: a continued line that was not copied whole
        with pytest.raises(CommandSyntaxError):
            split(command)
        return
    # In double quotes a shell keeps the backslash unless it is before one of $`"\; so do we,
    # and shlex forgets the dollar.
    assume("\\$" not in command)
    assert split(command) == expected


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
