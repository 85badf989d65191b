"""YAML files: scalars stay text, and a broken file is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.config import ConfigError

from .conftest import Load, Refuse


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("- a\n", ": the file is a list, but must be a mapping of keys to values"),
        ("hello", ": the file is a single value, but must be a mapping of keys to values"),
        ("server: 5", ": server is a single value, but must be a mapping of keys to values"),
        ("server: []", ": server is a list, but must be a mapping of keys to values"),
        ("server:\n  port: 1\n host: x\n", ", line 3: is not valid YAML: "),
        ("a: [1, 2\nb: 3", ", line 2: is not valid YAML: "),
        ("server:\n\tport: 1", ", line 2: is not valid YAML: "),
        ("a: 1\n---\nb: 2", ", line 2: is not valid YAML: "),
        ("a: *nowhere", ", line 1: is not valid YAML: found undefined alias"),
        ("a: !!python/object/apply:os.system [x]", ", line 1: is not valid YAML: "),
        ("server: {port: 1, port: 2}", ", line 1: is not valid YAML: the key 'port' comes twice"),
        ("{[a]: b}", ", line 1: is not valid YAML: found unhashable key"),
        ('a: "\\UFFFFFFFF"', ": is not valid YAML: an escape is not a Unicode character"),
        (b"server: {host: a\0b}", ": is not valid YAML: "),
        (b"server: {host: \xff}", ": is not valid YAML: "),
        (b"\xff\xfe\x00\xd8", ": is not valid YAML: "),
        ('server: {host: "a\\0b"}', ": server.host has a NUL character, which is not allowed"),
        ('backends: {vllm: {args: ["\\0"]}}', ": backends.vllm.args has a NUL character"),
        ('backends: {vllm: {environment: {"\\0": x}}}', ": backends.vllm.environment has a NUL"),
        (
            "backends: {llama-cpp: {docker: }, llama_cpp: {docker: {enabled: 1}}}",
            ": backends.llama-cpp comes twice, also under its other name",
        ),
        ("[" * 5000, ": is nested too deeply"),
        ("#" * (1 << 20) + "\n", ": is too large, at most 1048576 bytes are allowed"),
    ],
)
def test_broken_file_is_one_line_with_the_place(
    refuse: Refuse, tmp_path: Path, yaml: str | bytes, message: str
) -> None:
    error = refuse(yaml)
    assert len(error.lines) == 1
    assert str(error).startswith(f"{tmp_path}/llamactl.yaml{message}")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("top", ["server: {port: %s}", "unknown: %s", "auth: %s", "nodes: %s"])
def test_aliases_of_gigabytes_are_neither_built_nor_printed(
    load_config: Load, tmp_path: Path, top: str
) -> None:
    lines = ["a0: &a0 [x]"]
    for level in range(1, 30):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    try:
        told = load_config("\n".join([*lines, top % "*a29"])).config_warnings
    except ConfigError as error:
        told = error.lines
    assert sum(map(len, told)) < 10_000


def test_a_recursive_list_is_refused_or_ignored(refuse: Refuse, load_config: Load) -> None:
    assert len(str(refuse("server: {port: &a [*a]}"))) < 1000
    assert len(refuse("backends: {vllm: {args: &a [*a]}}").lines) == 1
    assert load_config("x: &a {b: *a}").server.port == 8080


def test_tags_that_are_written_out_are_texts_too(load_config: Load, refuse: Refuse) -> None:
    assert load_config("server: {port: !!int 81, host: !!timestamp x}").server.port == 81
    assert "server.port is 'x'" in str(refuse("server: {port: !!int x}"))


def test_a_recursive_section_is_read_once(load_config: Load) -> None:
    config = load_config("server: &a {port: 1, server: *a}")
    assert config.server.port == 1
