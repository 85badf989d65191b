"""The embedded server's program, without a model."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import xllamacpp

from instances.backends.embedded import PROGRAM
from tests.support.stack import free_port

COMMAND = [sys.executable, "-I", str(PROGRAM)]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environ,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def last_line(*arguments: str, **environ: str) -> str:
    """Return the last line of a failing run, which must hold the reason."""
    ended = run(*arguments, **environ)
    assert ended.returncode == 1, ended
    return ended.stderr.splitlines()[-1]


def test_help_version_and_devices() -> None:
    assert "--ctx-size" in run("--help").stdout
    assert run("--version").stdout.startswith(f"version: xllamacpp {xllamacpp.__version__}")
    assert run("--list-devices").stdout.startswith("Available devices:\n  ")


def test_start_without_a_model_is_refused() -> None:
    assert last_line().startswith("error: no model given")
    assert last_line("--model-url", "http://127.0.0.1:9/x").startswith("error: no model given")


def test_unknown_flag_ends_the_program_with_code_1() -> None:
    assert last_line("--model", "x", "--foo").startswith("error: unknown argument: --foo")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that passes for a model until llama.cpp reads it."""
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    return file


@pytest.mark.parametrize("flag", ["--mmproj", "--model-draft", "--lora"])
def test_each_model_file_is_checked(flag: str, gguf: Path) -> None:
    line = last_line("--model", str(gguf), flag, "/none.gguf")
    assert line == "error: model file not found: /none.gguf. Check the path."


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    assert f"model file is no GGUF file: {text}" in last_line("--model", str(text))
    assert "model file can't be read" in last_line("--model", str(tmp_path))


def test_a_port_in_use_is_an_error(gguf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = last_line("--model", str(gguf), "--port", str(port))
    assert line.startswith(f"error: port in use: 127.0.0.1 port {port}")


def test_an_address_of_another_host_is_an_error(gguf: Path) -> None:
    line = last_line("--model", str(gguf), "--host", "192.0.2.1")
    assert line.startswith("error: cannot listen on 192.0.2.1 port 8080")


def test_a_damaged_model_is_an_error_after_the_lines_of_llama_cpp(gguf: Path) -> None:
    ended = run("--model", str(gguf), "--port", str(free_port()))
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert any("error loading model" in line for line in lines[:-1])
    assert lines[-1].startswith(f"error: model file can't be loaded: {gguf}")


def test_the_reason_is_the_last_line_although_llama_cpp_prints_later(gguf: Path) -> None:
    # llama.cpp's own output is buffered: it lists the buffer types after our line.
    line = last_line("-m", str(gguf), "--port", str(free_port()), "--override-tensor", "a=B")
    assert line == "error: invalid value for --override-tensor: unknown buffer type."
