"""Flags of the embedded server, as parameters of xllamacpp."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from instances.backends.embedded.arguments import BY_NAME, FLAGS, parse
from instances.backends.embedded.kinds import KINDS, SWITCH
from instances.backends.embedded.setters import SETTERS
from instances.backends.embedded.start_error import StartError


def apply(*arguments: str, **environ: str) -> Any:
    """Apply arguments and environment to new parameters."""
    params = xllamacpp.CommonParams()
    for setting in parse(arguments, environ):
        setting.apply(params)
    return params


def refusal(*arguments: str, **environ: str) -> str:
    with pytest.raises(StartError) as caught:
        apply(*arguments, **environ)
    return str(caught.value)


def test_names_aliases_and_spellings_mean_the_same() -> None:
    for arguments in (
        ("--ctx-size", "4096"),
        ("-c", "4096"),
        ("--ctx-size=4096",),
        ("--ctx_size", "4096"),
        ("-c", "1", "--ctx-size", "4096"),
    ):
        assert apply(*arguments).n_ctx == 4096, arguments


def test_values_may_begin_with_a_dash_or_hold_an_equals_sign() -> None:
    assert apply("--predict", "-1", "-n=-2").n_predict == -2
    assert apply("--seed", "-1").sampling.seed == 2**32 - 1
    assert apply("--chat-template", "--x--").chat_template == "--x--"
    assert apply("--chat-template={% set a = 1 %}").chat_template == "{% set a = 1 %}"


def test_switches_go_off_by_name_and_by_value() -> None:
    assert apply().endpoint_slots
    assert not apply("--no-slots").endpoint_slots
    assert not apply("--slots=off").endpoint_slots
    assert apply("--no-slots", "--slots").endpoint_slots
    assert apply("--no-kv-offload").no_kv_offload
    assert not apply("-nkvo", "-kvo").no_kv_offload


def test_the_command_line_overrides_the_environment() -> None:
    assert apply(LLAMA_ARG_CTX_SIZE="512").n_ctx == 512
    assert apply("-c", "1024", LLAMA_ARG_CTX_SIZE="512").n_ctx == 1024
    assert not apply(LLAMA_ARG_NO_JINJA="1").use_jinja
    assert not apply(LLAMA_ARG_JINJA="false").use_jinja


def test_api_keys_add_up(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nthree\n\nfour\n")
    params = apply("--api-key", "two", "--api-key-file", str(keys), LLAMA_API_KEY="zero,one")
    assert params.api_keys == ["zero", "one", "two", "three", "four"]


def test_lists_and_arrays() -> None:
    assert apply("--alias", "a, b", "-a", "c").model_alias == {"a", "b", "c"}
    assert apply("--host", "127.0.0.1,::1").hostnames == ["127.0.0.1", "::1"]
    assert apply("--tensor-split", "3,1").tensor_split[:3] == [3.0, 1.0, 0.0]
    assert apply("--fit-target", "512").fit_params_target[:2] == [2**29, 2**29]
    assert apply("--fit-target", "1,2").fit_params_target[:3] == [2**20, 2**21, 2**30]
    assert "at most" in refusal("--tensor-split", ",".join(["1"] * 200))
    adapters = apply("--lora", "/a,/b", "--lora-scaled", "/c:0.5").lora_adapters
    assert [(adapter.path, adapter.scale) for adapter in adapters] == [
        ("/a", 1.0),
        ("/b", 1.0),
        ("/c", 0.5),
    ]


def test_a_flag_may_set_more_than_one_parameter() -> None:
    assert apply("--ctx-size", "0").fit_params_min_ctx == -1
    assert apply("--reranking").embedding
    assert apply("--reranking").pooling_type.name == "LLAMA_POOLING_TYPE_RANK"
    assert apply("--timeout", "7").timeout_write == apply("-to", "7").timeout_read == 7
    assert apply("--repeat-last-n", "100").sampling.n_prev == 100
    assert apply("--cpu-moe").tensor_buft_overrides.endswith("exps=CPU")
    assert apply("--n-cpu-moe", "2").tensor_buft_overrides.count("=CPU") == 2
    assert apply("--top-k", "5").sampling.user_sampling_config > 0
    assert apply("--threads", "0").cpuparams.n_threads == os.cpu_count()
    assert apply("--gpu-layers", "all").n_gpu_layers == -2
    assert apply("--temp", "-1").sampling.temp == 0
    assert apply("--rope-scale", "4").rope_freq_scale == 0.25
    assert apply("--verbose").verbosity > apply().verbosity
    assert apply("--sampler-seq", "kt").sampling.samplers == "top_k;temperature"
    assert "object" in apply("-j", '{"type": "object"}').sampling.grammar.grammar


def test_arguments_of_the_chat_template() -> None:
    params = apply(
        "--chat-template-kwargs", '{"a": [1]}', "--reasoning", "off", "--reasoning-effort", "low"
    )
    assert params.default_template_kwargs == {
        "a": "[1]",
        "enable_thinking": "false",
        "reasoning_effort": '"low"',
    }
    effort = ("--reasoning-effort", "low", "--reasoning-effort", "default")
    assert apply(*effort).default_template_kwargs == {}


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ((), "AUTO"),
        (("--no-mmap",), "NONE"),
        (("--mlock",), "MMAP_MLOCK"),
        (("--no-mmap", "--mlock"), "MLOCK"),
        (("--mlock", "--no-mmap"), "MLOCK"),
        (("--direct-io",), "DIRECT_IO"),
        (("--load-mode", "mmap+mlock"), "MMAP_MLOCK"),
    ],
)
def test_old_and_new_flags_of_the_load_mode(arguments: tuple[str, ...], mode: str) -> None:
    assert apply(*arguments).load_mode.name == f"LLAMA_LOAD_MODE_{mode}"


def test_flash_attention_without_a_value_means_on() -> None:
    for arguments in (("-fa",), ("-fa", "on"), ("--flash-attn", "--metrics"), ("-fa=on",)):
        assert apply(*arguments).flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_ENABLED"
    assert apply("-fa", "off").flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_DISABLED"


def test_a_flag_without_effect_gets_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    apply("--defrag-thold", "0.1")
    assert "--defrag-thold has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-c", "abc"), "invalid value for -c: 'abc' must be a whole number"),
        (("--port", "70000"), "invalid value for --port: '70000' must be a whole number from 0 to"),
        (("--temp", "nan"), "invalid value for --temp: 'nan' must be a number"),
        (("--parallel", "0"), "invalid value for --parallel: '0' must be -1 or"),
        (("--pooling", "avg"), "'avg' must be one of none, mean, cls, last, rank"),
        (("--cache-type-k=q9",), "'q9' must be one of f32, f16"),
        (("--slots=maybe",), "'maybe' must be on or off"),
        (("--slot-save-path", "/none"), "'/none' must be an existing directory"),
        (("--chat-template-file", "/none"), "'/none' must be a text file that can be read"),
        (("--chat-template-kwargs", "[]"), "'[]' must be a JSON object"),
        (("--lora-scaled", "/a"), "'/a' must be a comma-separated list, each FILE:SCALE"),
        (("--override-tensor", "x=Nowhere"), "invalid value for --override-tensor: unknown"),
        (("--json-schema", "{bad"), "invalid value for --json-schema: json_schema"),
        (("--spec-type", "magic"), "each one of none, draft-simple"),
        (("--model",), "--model needs a value, which must be a text"),
        (("--foo",), "unknown argument: --foo"),
        (("--ctx-siz", "1"), "unknown argument: --ctx-siz (did you mean --ctx-size?)"),
        (("stray",), "unknown argument: stray"),
        (("---model", "x"), "unknown argument: ---model"),
    ],
)
def test_refusal_names_flag_value_and_rule(arguments: tuple[str, ...], told: str) -> None:
    assert told in refusal(*arguments)


def test_refusal_names_the_variable() -> None:
    assert refusal(LLAMA_ARG_PORT="x").startswith("invalid value for LLAMA_ARG_PORT: 'x' must")


def test_the_error_of_an_unknown_flag_says_how_to_get_all_flags() -> None:
    assert refusal("--foo").endswith("install llama-server or set backends.llama-cpp.command.")


def test_names_and_variables_are_unique_and_kinds_and_setters_used() -> None:
    names = [name for flag in FLAGS for name in (*flag.names, *flag.off)]
    assert len(names) == len(set(names)) == len(BY_NAME)
    variables = [flag.variable for flag in FLAGS if flag.variable]
    assert len(variables) == len(set(variables))
    assert {id(flag.kind) for flag in FLAGS} == {id(kind) for kind in KINDS.values()}
    assert {flag.setter for flag in FLAGS} >= set(SETTERS.values())
    assert all(any(name.startswith("--") for name in flag.names) for flag in FLAGS)


SAMPLES = {
    "on-off": "off",
    "file": "{file}",
    "path": "{file}",
    "keys": "{file}",
    "folder": "{folder}",
    "object": '{"a": 1}',
    "heat": "0.3",
    "number": "0.5",
    "above-0": "0.5",
    "letters": "kt",
    "scaled": "/a:0.5",
    "three-way": "on",
    "flash": "on",
    "cache": "q8_0",
    "pooling": "mean",
    "rope": "yarn",
    "split": "row",
    "load": "mmap",
    "lazy": "on",
    "numa": "isolate",
    "priority": "2",
    "thinking": "none",
    "speculation": "ngram-simple",
    "layers": "all",
}
"""A value for each kind, where 7 will not do."""
SAMPLES_OF_FLAGS = {
    "--override-tensor": "x=CPU",
    "--spec-draft-override-tensor": "x=CPU",
    "--spec-draft-device": "none",
    "--mmproj-device": "none",
    "--json-schema": "{}",
    "--json-schema-file": "{schema}",
    "--samplers": "top_k",
}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[-1])
def test_every_flag_sets_its_parameters(flag: Any, tmp_path: Path) -> None:
    files = {"{file}": tmp_path / "file", "{schema}": tmp_path / "x.json", "{folder}": tmp_path}
    files["{file}"].write_text('root ::= "a"')
    files["{schema}"].write_text("{}")
    kind = next(name for name, kind in KINDS.items() if kind is flag.kind)
    wanted = next(
        (SAMPLES_OF_FLAGS[name] for name in flag.names if name in SAMPLES_OF_FLAGS),
        SAMPLES.get(kind, "7"),
    )
    value = str(files.get(wanted, wanted))
    for name in flag.names:
        apply(name) if flag.kind is SWITCH else apply(name, value)
    for name in flag.off:
        apply(name)
    if flag.variable:
        apply(**{flag.variable: "on" if flag.kind is SWITCH else value})
