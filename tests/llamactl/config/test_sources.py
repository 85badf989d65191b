"""Precedence of the sources, and arbitrary input to each."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instances.backends.registry import config_sections
from llamactl.config import AppConfig, ConfigError, load
from llamactl.config.variables import variables_with

from .conftest import Load

VARIABLES = variables_with(config_sections())


@pytest.mark.parametrize(
    ("layers", "port", "origin"),
    [
        ("", 8080, "default"),
        ("d", 1, ".env: LLAMACTL_PORT"),
        ("dy", 2, "llamactl.yaml"),
        ("dye", 3, "LLAMACTL_PORT"),
        ("de", 3, "LLAMACTL_PORT"),
        ("ye", 3, "LLAMACTL_PORT"),
    ],
)
def test_precedence(load_config: Load, layers: str, port: int, origin: str) -> None:
    config = load_config(
        "server: {port: 2}" if "y" in layers else None,
        dotenv="LLAMACTL_PORT=1\n" if "d" in layers else None,
        **({"LLAMACTL_PORT": "3"} if "e" in layers else {}),
    )
    assert config.server.port == port
    assert config.origin(("server", "port")).endswith(origin)


def test_sections_merge_key_by_key_and_lists_are_replaced(load_config: Load) -> None:
    config = load_config(
        "server: {host: h, allowed_origins: [a]}\n"
        "backends: {llama-cpp: {environment: {A: file, B: file}}}\n",
        dotenv="LLAMACTL_LLAMACPP_ENV=A=dotenv,C=dotenv\nLLAMACTL_PORT=99\n",
        LLAMACTL_ALLOWED_ORIGINS="b",
        LLAMACTL_LLAMACPP_ENV="A=environment",
    )
    assert (config.server.host, config.server.port) == ("h", 99)
    assert config.server.allowed_origins == ["b"]
    environment = config.backends.llama_cpp.environment
    assert environment == {"A": "environment", "B": "file", "C": "dotenv"}
    path = ("backends", "llama_cpp", "environment")
    assert config.origin((*path, "A")) == "LLAMACTL_LLAMACPP_ENV"
    assert config.origin((*path, "B")).endswith("llamactl.yaml")
    assert config.origin((*path, "C")).endswith(".env: LLAMACTL_LLAMACPP_ENV")


def test_an_overridden_bad_value_is_ignored(load_config: Load) -> None:
    assert load_config("server: {port: x}", LLAMACTL_PORT="3").server.port == 3


def test_plain_construction_reads_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", '{"port": 1}')
    monkeypatch.setenv("LLAMACTL_PORT", "1")
    assert AppConfig().server.port == 8080


def test_load_reads_the_process_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("LLAMACTL_")]:
        monkeypatch.delenv(name)  # the test settings' own
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMACTL_PORT", "4")
    (tmp_path / "config.yaml").write_text("server: {host: from-file}")
    config = load(backends=config_sections())
    assert (config.server.port, config.server.host) == (4, "from-file")


# -- arbitrary input -------------------------------------------------------------------------------

anything = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check_that_it_loads_or_says_why(tmp_path: Path, environ: dict[str, str]) -> None:
    try:
        config = load({"HOME": str(tmp_path), **environ}, tmp_path, backends=config_sections())
        told = config.config_warnings
    except ConfigError as error:
        told = (*error.lines, *error.warnings, *([] if error.lines else ["\0"]))
    for line in told:
        assert line.isprintable()
        assert len(line) < 1000


@anything
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "llamactl.yaml").write_bytes(content)
    check_that_it_loads_or_says_why(tmp_path, {})


LEAVES = (
    st.none()
    | st.sampled_from(["~", "1", "true", "x", "[]", "0", "-1", "5m", '"\\0"'])
    | (
        st.text(alphabet=st.characters(codec="utf-8"), max_size=8).map(
            lambda text: '"' + re.sub(r'[\\"\W]', lambda m: f"\\U{ord(m[0]):08x}", text) + '"'
        )
    )
)
KEYS = [
    "llama_cpp",
    "instances_dir",
    *{part.replace("_cpp", "-cpp") for key in VARIABLES.values() for part in key.split(".")},
]


def as_flow(tree: object) -> str:
    """A tree of YAML snippets as one flow-style document."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {as_flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(as_flow(item) for item in tree) + "]"
    return "" if tree is None else str(tree)


TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(st.sampled_from([*KEYS, "nodes", "w"]), inner, max_size=5)
        | st.lists(inner.filter(lambda item: item is not None), max_size=3)
    ),
    max_leaves=12,
)


@anything
@given(tree=st.dictionaries(st.sampled_from([*AppConfig.model_fields]), TREES))
def test_any_tree_as_a_file(tmp_path: Path, tree: dict[str, object]) -> None:
    (tmp_path / "llamactl.yaml").write_text(as_flow(tree), encoding="utf-8")
    check_that_it_loads_or_says_why(tmp_path, {})


@anything
@given(
    environ=st.dictionaries(
        st.sampled_from([*VARIABLES, "LLAMACTL_CONFIG_PATH"]), st.text(max_size=20), max_size=6
    )
)
def test_any_text_in_the_environment(tmp_path: Path, environ: dict[str, str]) -> None:
    check_that_it_loads_or_says_why(tmp_path, environ)
