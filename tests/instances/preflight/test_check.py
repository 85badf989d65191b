"""The whole check: program and files together, and instances that are not checked."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from instances.options import InstanceOptions
from instances.preflight import check
from instances.preflight.check import check_options
from instances.preflight.findings import PreflightFinding
from instances.preflight.help_cache import HelpCache
from llamactl.config import AppConfig


def found(config: AppConfig, /, **document: Any) -> list[PreflightFinding]:
    options = InstanceOptions.parse(document, config)
    return check_options(options, config, timeout_seconds=60, help_cache=HelpCache())


def fields(findings: list[PreflightFinding]) -> list[tuple[str, str]]:
    return [(finding.field, finding.severity.value) for finding in findings]


def with_node(override: Any) -> AppConfig:
    from llamactl.config.schema import NodeConfig

    config: AppConfig = override(instances={})
    return config.model_copy(update={"nodes": {"far": NodeConfig(address="http://far:8080")}})


def test_bundled_server_is_asked_for_real(config: AppConfig, gemma_model: Path) -> None:
    options = {"model": str(gemma_model), "ctx_size": 512, "flash_attn": "on", "mmap": False}
    assert found(config, backend_options=options) == []
    (finding,) = found(config, backend_options={**options, "ctx_sise": 512})
    assert fields([finding]) == [("backend_options.extra_args.ctx_sise", "warning")]
    assert finding.message == "--ctx-sise is not in the help of the bundled llama.cpp server"
    assert finding.suggestion == "did you mean --ctx-size?"


def test_flag_that_the_bundled_server_refuses_by_name_is_a_warning(
    config: AppConfig, gemma_model: Path
) -> None:
    findings = found(config, backend_options={"model": str(gemma_model), "device": "CUDA0"})
    assert fields(findings) == [("backend_options.device", "warning")]


def test_text_file_as_a_model_is_an_error(config: AppConfig, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("hello")
    (finding,) = found(config, backend_options={"model": str(tmp_path / "m.gguf")})
    assert fields([finding]) == [("backend_options.model", "error")]
    assert "is a text file" in finding.message


def test_errors_come_before_warnings(config: AppConfig) -> None:
    options = {"model": "/nonexistent.gguf", "lora": ["/nonexistent"], "unheard_of_flag": 1}
    severities = [severity for _, severity in fields(found(config, backend_options=options))]
    assert severities == ["error", "error", "warning"]


def test_relative_path_is_meant_where_backends_are_started(config: AppConfig) -> None:
    (finding,) = found(config, backend_options={"model": "m"})
    assert str(config.data_dir) in finding.message


def test_program_that_was_typed_wrong_is_an_error(config: AppConfig) -> None:
    findings = found(config, command_override="/nonexistent/llama-server")
    assert fields(findings) == [("command_override", "error")]


def test_program_that_is_not_installed_yet_is_a_warning(config: AppConfig) -> None:
    findings = found(config, backend_type="vllm", backend_options={"model": "a/b"})
    assert fields(findings) == [("backend_type", "warning")]


def test_program_without_help_is_one_warning(config: AppConfig) -> None:
    findings = found(config, command_override="/bin/true", backend_options={"unheard_of": 1})
    assert fields(findings) == [("command_override", "warning")]
    assert "the flags were not checked" in findings[0].message


def test_the_program_is_searched_on_the_path_of_the_process(
    config: AppConfig, tmp_path: Path
) -> None:
    flags = "\\n".join(f"--flag-{number}" for number in range(30))
    (tmp_path / "mine").write_text(f"#!{sys.executable}\nprint('''{flags}''')\n")
    (tmp_path / "mine").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    findings = found(
        config,
        command_override="mine",
        environment={"PATH": path},
        backend_options={"extra_args": {"flag_3": "true", "flagg-4": "true"}},
    )
    assert [finding.suggestion for finding in findings] == ["did you mean --flag-4?"]


def test_instances_of_other_nodes_are_not_checked(override: Any) -> None:
    options = {"model": "/nonexistent.gguf", "unheard_of": 1}
    assert found(with_node(override), nodes=["far"], backend_options=options) == []


def test_paths_in_containers_are_not_checked(config: AppConfig, tmp_path: Path) -> None:
    options = {"model": "/models/in-the-container.gguf", "unheard_of": 1}
    findings = found(config, docker_enabled=True, backend_options=options)
    assert set(fields(findings)) <= {("docker_enabled", "warning")}


def test_a_disk_that_does_not_answer_delays_nothing(
    config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(check, "check_files", lambda *_: answers.wait(60) and [])
    options = InstanceOptions.parse({"backend_options": {"model": "/away/m.gguf"}}, config)
    try:
        findings = check_options(options, config, timeout_seconds=0.2, help_cache=HelpCache())
    finally:
        answers.set()
    assert ("backend_options", "warning") in fields(findings)
    assert "does not answer" in findings[-1].message or "does not answer" in findings[0].message


@pytest.mark.parametrize(
    "extra",
    [
        {"header": "Authorization: Bearer hunter2"},
        {"ssl_key_password": "hunter2"},
        {"model_url2": "https://me:hunter2@x/y"},
        {"header": ["X-A: 1", "X-Api-Key: hunter2"]},
    ],
)
@pytest.mark.parametrize("more", [{}, {"docker_enabled": True}])
def test_a_secret_in_the_command_line_is_a_warning(
    config: AppConfig, extra: dict[str, Any], more: dict[str, Any]
) -> None:
    findings = found(config, backend_options={"extra_args": extra}, **more)
    (finding,) = [each for each in findings if "is a secret" in each.message]
    flag = next(iter(extra)).replace("_", "-")
    assert finding.message.startswith(f"the value of --{flag} is a secret")
    assert "hunter2" not in finding.text


def test_a_secret_in_the_arguments_of_docker_is_a_warning(config: AppConfig) -> None:
    arguments = "-e HF_TOKEN=hunter2 -e A=b --env=B=c -e API_KEY -v /m:/m"
    findings = found(config, docker_enabled=True, docker_args=arguments, backend_options={})
    (finding,) = [each for each in findings if "is a secret" in each.message]
    assert finding.field == "docker_args"
    assert finding.message.startswith("the value of HF_TOKEN is a secret")
    assert "hunter2" not in finding.text


def test_secrets_that_go_by_environment_are_no_finding(config: AppConfig) -> None:
    for options in ({"api_key": "k", "hf_token": "t"}, {"extra_args": {"hf_token": "t"}}):
        findings = found(config, backend_options=options)
        assert not [each for each in findings if "secret" in each.message]
