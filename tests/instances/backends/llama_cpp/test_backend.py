"""llama-server: flags against the seed's, models, and launch options."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from instances.backends.registry import backend_for
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "parse_vectors.json").read_text(encoding="utf-8"))
LLAMA = backend_for("llama_cpp")

# The seed's vectors with an outcome that is a defect for users, and our outcome instead.
BETTER = {
    # `--foo_bar true`: llama-server refuses the stray "true".
    "extra_args from parse-command keep underscores and a literal true": [
        *("--model", "a", "--foo-bar"),
    ],
    # The program's flag has a period: --fim-qwen-1-5b-default could never work.
    "odd field names map by underscore->hyphen only": [
        *("--ubatch-size", "64"),
        *("--fim-qwen-1.5b-default", "--embd-bge-small-en-default"),
    ],
    # Unlike in the seed, an explicit value is sent.
    "zero-valued settings cannot be expressed": [
        *("--gpu-layers", "0", "--main-gpu", "0", "--temp", "0"),
    ],
    # vLLM reads --allowed-origins and its like as one JSON list; repeated, it would not start.
    "ArrayFields-vllm": [
        *("--allowed-origins", '["http://localhost:3000","https://example.com"]'),
        *("--allowed-methods", '["GET","POST"]'),
        *("--middleware", "middleware1"),
        *("--middleware", "middleware2"),
        *("--middleware", "middleware3"),
    ],
}


@pytest.mark.parametrize(
    "vector", VECTORS["build_args"], ids=lambda v: f"{v['backend_type']}-{v['name']}"
)
def test_a_seed_vector_builds_as_it_does_there_or_better(vector: dict[str, Any]) -> None:
    backend = backend_for(vector["backend_type"])
    args = backend.build_args(vector["backend_options"], docker=vector["docker"])
    name = vector["name"]
    better = BETTER.get(name) or BETTER.get(f"{name}-{vector['backend_type']}")
    if better is not None:
        assert args == better
        return
    pairs = list(itertools.pairwise(args))
    for word in vector["expect_contains"]:
        assert word in args
    for flag, value in vector["expect_flag_value_pairs"]:
        assert (flag, value) in pairs
    for word in vector["expect_excluded"]:
        assert word not in args


@pytest.mark.parametrize(
    "vector",
    [v for v in VECTORS["unmarshal_backend_options"] if "json" in v],
    ids=lambda v: str(v["json"])[:40],
)
def test_options_of_the_seed_are_read_as_there(vector: dict[str, Any]) -> None:
    assert LLAMA.normalise(vector["json"]) == vector["expect"]


@pytest.mark.parametrize(("alias", "name"), VECTORS["llama_aliases"].items())
def test_an_alias_of_the_seed_means_the_same_option(alias: str, name: str) -> None:
    found = LLAMA.table.find(alias)

    assert found is not None
    assert found[0].name == name
    assert found[1] is True


@pytest.mark.parametrize("name", VECTORS["multi_valued_flags"]["llama_cpp"])
def test_a_list_of_the_seed_repeats_its_flag(name: str) -> None:
    flag = "--" + name.replace("_", "-")

    assert LLAMA.build_args({name: ["a", "b"]}) == [flag, "a", flag, "b"]


def test_the_order_of_arguments_does_not_depend_on_the_order_of_options() -> None:
    one = LLAMA.build_args({"port": 1, "model": "a", "threads": 2, "x": ""})
    other = LLAMA.build_args({"x": "", "threads": 2, "model": "a", "port": 1})

    assert one == other == ["--threads", "2", "--model", "a", "--port", "1", "--x"]


def test_jinja_comes_before_the_chat_template_that_needs_it() -> None:
    args = LLAMA.build_args({"chat_template": "x", "jinja": True})

    assert args == ["--jinja", "--chat-template", "x"]


def test_a_layer_range_is_two_arguments() -> None:
    assert LLAMA.build_args({"control_vector_layer_range": "1 30"}) == [
        *("--control-vector-layer-range", "1", "30")
    ]


def test_launching_fills_in_address_and_alias_and_takes_out_secrets() -> None:
    options = LLAMA.launch_options(
        {"model": "/m/a.gguf", "api_key": "sk-1,sk-2", "hf_token": "hf_x", "port": 1},
        instance_name="tiny",
        host="127.0.0.1",
        port=8001,
    )

    assert options == {"model": "/m/a.gguf", "host": "127.0.0.1", "port": 8001, "alias": "tiny"}


def test_launching_keeps_the_operators_host_and_alias() -> None:
    options = LLAMA.launch_options(
        {"hf_repo": "a/b", "host": "0.0.0.0", "alias": "mine"},
        instance_name="tiny",
        host="127.0.0.1",
        port=8001,
    )

    assert options["host"] == "0.0.0.0"
    assert options["alias"] == "mine"
    assert LLAMA.connect_host(options) == "127.0.0.1"


def test_a_router_gets_no_alias_and_serves_no_model_of_its_own() -> None:
    options = LLAMA.launch_options(
        {"models_dir": "/models"}, instance_name="tiny", host="127.0.0.1", port=8001
    )

    assert "alias" not in options
    assert LLAMA.served_model({"models_dir": "/models"}, "tiny") is None
    assert LLAMA.summary({"models_dir": "/models"}) == "router: /models"
    assert LLAMA.summary({}) == "router"
    assert LLAMA.model_path({}) is None


@pytest.mark.parametrize(
    ("options", "served", "summary", "path"),
    [
        ({"model": "/m/x/a.gguf"}, "tiny", "a.gguf", "/m/x/a.gguf"),
        ({"model": "a.gguf", "alias": "one,two"}, "one", "a.gguf", "a.gguf"),
        ({"hf_repo": "o/n:Q4"}, "tiny", "o/n:Q4", None),
        ({"hf_repo": "o/n", "hf_file": "x/a.gguf"}, "tiny", "o/n a.gguf", None),
        ({"model_url": "https://h/p/a.gguf?download=true"}, "tiny", "a.gguf", None),
        ({"docker_repo": "ai/gemma3"}, "tiny", "ai/gemma3", None),
        ({"gpt_oss_20b_default": True}, "tiny", "gpt-oss-20b-default", None),
    ],
)
def test_served_model_path_and_summary(
    options: dict[str, object], served: str, summary: str, path: str | None
) -> None:
    assert LLAMA.served_model(options, "tiny") == served
    assert LLAMA.summary(options) == summary
    assert LLAMA.model_path(options) == path


def test_default_speculative_decoding_is_no_model() -> None:
    assert LLAMA.served_model({"spec_default": True}, "tiny") is None


def test_the_key_goes_by_environment() -> None:
    assert LLAMA.key_environment("k") == {"LLAMA_API_KEY": "k"}
    assert LLAMA.operator_key({"api_key": "sk-1, sk-2"}) == "sk-1"
    assert LLAMA.operator_key({}) is None


@pytest.mark.parametrize(
    ("host", "reached"),
    [(None, "127.0.0.1"), ("::", "::1"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.5", "10.0.0.5")],
)
def test_the_address_to_connect_to(host: str | None, reached: str) -> None:
    assert LLAMA.connect_host({"host": host} if host else {}) == reached
