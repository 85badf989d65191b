"""Endpoints of the backends: output of programs, parsing of command lines."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from llamactl.config import AppConfig

BACKENDS = "/api/v1/backends"


@pytest.fixture
def program(tmp_path: Path, settings: Any) -> Any:
    """Configure a script as llama-server, with arguments and environment of its own."""

    def write(script: str) -> Path:
        path = tmp_path / "my-server"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        config: AppConfig = settings.LLAMACTL
        llama_cpp = config.backends.llama_cpp.model_copy(
            update={"command": str(path), "args": ["--config"], "environment": {"GREETING": "hi"}}
        )
        backends = config.backends.model_copy(update={"llama_cpp": llama_cpp})
        settings.LLAMACTL = config.model_copy(update={"backends": backends})
        return path

    return write


@pytest.mark.parametrize(
    ("operation", "flag"),
    [("help", "--help"), ("version", "--version"), ("devices", "--list-devices")],
)
def test_configured_program_is_run(api: Client, program: Any, operation: str, flag: str) -> None:
    program('echo "$GREETING $1"; shift $(($# - 1)); echo "$1" >&2')
    response = api.get(f"{BACKENDS}/llama-cpp/{operation}")
    assert response.content.decode() == f"hi --config\n{flag}\n"
    assert response["Content-Type"] == "text/plain; charset=utf-8"


def test_failed_program_is_reported(api: Client, program: Any) -> None:
    program("echo broken library; exit 127")
    response = api.get(f"{BACKENDS}/llama-cpp/help")
    assert (response.status_code, response.json()["error"]) == (500, "command failed")
    assert "exit code 127: broken library" in response.json()["details"]


def test_missing_program_is_reported(api: Client, program: Any) -> None:
    program("").unlink()
    response = api.get(f"{BACKENDS}/llama-cpp/version")
    assert (response.status_code, response.json()["error"]) == (500, "command failed")
    assert "was not found" in response.json()["details"]


def test_bundled_server_is_run_where_none_is_installed(
    api: Client, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    response = api.get(f"{BACKENDS}/llama-cpp/help")
    assert response.status_code == 200, response.content
    assert "--model" in response.content.decode()


@pytest.mark.parametrize(
    ("backend", "command", "backend_type", "options"),
    [
        (
            "llama-cpp",
            "llama-server -m '/my models/a.gguf' -ngl 16 --custom x",
            "llama_cpp",
            {"model": "/my models/a.gguf", "gpu_layers": 16, "extra_args": {"custom": "x"}},
        ),
        ("vllm", "vllm serve org/m", "vllm", {"model": "org/m"}),
        ("mlx", "mlx_lm.server --model m --temp 0.5", "mlx_lm", {"model": "m", "temp": 0.5}),
    ],
)
def test_command_line_becomes_options(
    api: Client, backend: str, command: str, backend_type: str, options: dict[str, object]
) -> None:
    response = api.post(
        f"{BACKENDS}/{backend}/parse-command",
        {"command": command},
        content_type="application/json",
    )
    assert response.status_code == 200, response.content
    assert response.json() == {"backend_type": backend_type, "backend_options": options}


def test_variables_before_the_command_become_the_environment(api: Client) -> None:
    response = api.post(
        f"{BACKENDS}/vllm/parse-command",
        {"command": "CUDA_VISIBLE_DEVICES=0,1 vllm serve m"},
        content_type="application/json",
    )
    assert response.json()["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_command"),
        (b"{}", "invalid_command"),
        (b'{"command": ""}', "invalid_command"),
        (b'{"command": " \\n\\t"}', "invalid_command"),
        (b'{"command": null}', "invalid_request"),
        (b'{"command": 5}', "invalid_request"),
        (b'{"command": ["a"]}', "invalid_request"),
        (b'{"command": "x\\u0000"}', "invalid_request"),
        (b"[]", "invalid_request"),
        (b"{", "invalid_request"),
        (b'{"command": "---x"}', "parse_error"),
        (b'{"command": "\\"open"}', "parse_error"),
        (b'{"command": "rm -rf / | sh"}', "parse_error"),
        (b'{"command": "--port abc"}', "parse_error"),
        (b'{"command": "' + b"a " * 100_000 + b'"}', "parse_error"),
    ],
)
@pytest.mark.parametrize("backend", ["llama-cpp", "vllm", "mlx"])
def test_bad_command_is_400(api: Client, backend: str, body: bytes, code: str) -> None:
    response = api.generic(
        "POST", f"{BACKENDS}/{backend}/parse-command", body, content_type="application/json"
    )
    assert (response.status_code, response.json()["error"]) == (400, code), response.content
    assert len(response.content) < 1000


def test_unknown_backend_is_404(api: Client) -> None:
    assert api.post(f"{BACKENDS}/ollama/parse-command").status_code == 404
    assert api.get(f"{BACKENDS}/vllm/help").status_code == 404
