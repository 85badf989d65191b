"""vLLM: arguments as argparse reads them, and models."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instances.backends.base import Backend
from instances.backends.flags import FlagTable, FlagType, Many
from instances.backends.registry import backend_for
from tests.instances.backends.options_strategies import options_of

VLLM = backend_for("vllm")


def argparse_of(table: FlagTable) -> argparse.ArgumentParser:
    """A parser that takes each flag as vLLM's and mlx-lm's own take it."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False, add_help=False)
    parser.add_argument("model_tag", nargs="?")
    for flag in table.flags.values():
        settings: dict[str, Any] = {"dest": flag.name, "default": None}
        match flag.kind:
            case FlagType.BOOL if flag.negation:
                settings["action"] = argparse.BooleanOptionalAction
            case FlagType.BOOL:
                settings["action"] = "store_true"
            case FlagType.LIST if flag.many is Many.SPAN:
                settings["nargs"] = "+"
            case FlagType.LIST if flag.many is Many.ARRAY:
                settings["type"] = json.loads
            case FlagType.LIST:
                settings["action"] = "append"
            case FlagType.INT:
                settings["type"] = whole_number
            case FlagType.FLOAT:
                settings["type"] = float
            case _ if flag.bare:
                settings["nargs"], settings["const"] = "?", True
        parser.add_argument(flag.spelling, *flag.aliases, **settings)
    return parser


@pytest.mark.parametrize("backend", [VLLM, backend_for("mlx_lm")], ids=lambda b: b.type)
@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_argparse_reads_the_options_that_were_built(backend: Backend, data: st.DataObject) -> None:
    options = backend.normalise(data.draw(options_of(backend)))
    options.pop("extra_args", None)
    parser = argparse_of(backend.table)

    read = vars(parser.parse_args(backend.build_args(options)))

    tag = read.pop("model_tag")
    if tag is not None:
        read["model"] = tag
    said = {name: value for name, value in read.items() if value is not None}
    assert said == options


def whole_number(word: str) -> int | str:
    return int(word) if word.lstrip("-").isdigit() else word


def test_the_model_comes_first_and_without_its_flag() -> None:
    options = {
        "port": 8080,
        "model": "microsoft/DialoGPT-medium",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.8,
    }

    assert VLLM.build_args(options) == [
        "microsoft/DialoGPT-medium",
        *("--tensor-parallel-size", "2"),
        *("--gpu-memory-utilization", "0.8"),
        *("--port", "8080"),
    ]


def test_in_a_container_the_model_is_a_flag() -> None:
    assert VLLM.build_args({"model": "m", "port": 8000}, docker=True) == [
        *("--model", "m"),
        *("--port", "8000"),
    ]


def test_a_model_that_begins_with_a_dash_can_not_be_taken_for_a_flag() -> None:
    assert VLLM.build_args({"model": "--port"}) == ["--model=--port"]


@pytest.mark.parametrize(
    ("options", "args"),
    [
        # The seed repeats these flags; of a repeated nargs="+" flag argparse keeps the last only.
        ({"served_model_name": ["a", "b"]}, ["--served-model-name", "a", "b"]),
        ({"lora_modules": ["a=/x", "b=/y"]}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"lora_modules": {"name": "a"}}, ["--lora-modules", '{"name":"a"}']),
        ({"cudagraph_capture_sizes": [1, 2]}, ["--cudagraph-capture-sizes", "1", "2"]),
        ({"middleware": ["a", "b"]}, ["--middleware", "a", "--middleware", "b"]),
        ({"allowed_origins": ["*"]}, ["--allowed-origins", '["*"]']),
        ({"hf_overrides": {"a": [1, None]}}, ["--hf-overrides", '{"a":[1,null]}']),
        ({"hf_overrides": '{"a": 1}'}, ["--hf-overrides", '{"a": 1}']),
        ({"hf_token": True}, ["--hf-token"]),
        ({"max_model_len": "auto"}, ["--max-model-len", "auto"]),
        ({"max_model_len": -1}, ["--max-model-len=-1"]),
        ({"max_num_batched_tokens": "8k"}, ["--max-num-batched-tokens", "8k"]),
        ({"no_enable_prefix_caching": True}, ["--no-enable-prefix-caching"]),
        ({"tp": 2, "O": 3}, ["--tensor-parallel-size", "2", "--optimization-level", "3"]),
        ({"task": "embed", "swap_space": 4}, ["--swap-space", "4", "--task", "embed"]),
    ],
)
def test_a_value_is_written_as_vllm_takes_it(options: dict[str, Any], args: list[str]) -> None:
    assert VLLM.build_args(options) == args


def test_launching_takes_out_the_keys() -> None:
    options = VLLM.launch_options(
        {"model": "m", "api_key": ["k1"], "hf_token": "hf_x"},
        instance_name="tiny",
        host="127.0.0.1",
        port=8001,
    )

    assert options == {"model": "m", "host": "127.0.0.1", "port": 8001}
    assert VLLM.secret_environment({"hf_token": "hf_x"}) == {"HF_TOKEN": "hf_x"}
    assert VLLM.secret_environment({"hf_token": True}) == {}
    assert VLLM.operator_key({"api_key": ["k1", "k2"]}) == "k1"
    assert VLLM.key_environment("k") == {"VLLM_API_KEY": "k"}


def test_of_several_keys_all_are_given_and_the_first_is_llamactls() -> None:
    # vLLM's variable holds one key, so that several can only be arguments.
    options = VLLM.launch_options(
        {"model": "m", "api_key": ["k1", "k2"]}, instance_name="tiny", host="127.0.0.1", port=8001
    )
    assert options["api_key"] == ["k1", "k2"]
    args = VLLM.build_args(options)
    at = args.index("--api-key")
    assert args[at : at + 3] == ["--api-key", "k1", "k2"]
    assert VLLM.operator_key({"api_key": ["k1", "k2"]}) == "k1"


@pytest.mark.parametrize(
    ("options", "served", "summary", "path"),
    [
        ({"model": "o/n"}, "o/n", "o/n", None),
        ({"model": "/m/n/", "served_model_name": ["x", "y"]}, "x", "n", "/m/n/"),
        ({"model": "./n"}, "./n", "n", "./n"),
        ({"config": "a.yaml"}, None, "a.yaml", None),
        ({}, None, "no model set", None),
    ],
)
def test_served_model_path_and_summary(
    options: dict[str, object], served: str | None, summary: str, path: str | None
) -> None:
    assert VLLM.served_model(options, "tiny") == served
    assert VLLM.summary(options) == summary
    assert VLLM.model_path(options) == path
