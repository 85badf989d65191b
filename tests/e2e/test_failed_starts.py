"""Each way in which the real llama.cpp fails to start, and how it is explained."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.stack import Stack, running_stack
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return stack.new_key()


def expect_failure(stack: Stack, key: str, name: str, reason: str) -> dict[str, Any]:
    """Ask on demand, then look at the API: both give the reason."""
    answer = stack.chat(name, key)
    error: dict[str, Any] = answer.json()["error"]
    assert (error["code"], error.get("reason")) == ("backend_start_failed", reason), error
    assert answer.status_code == 502
    instance = stack.instance(name)
    assert instance["status"] == "failed"
    assert instance["failure"]["reason"] == reason
    assert instance["failure"]["details"] == error["message"]
    assert not stack.backends(name)
    return error


def test_model_file_that_is_not_there(stack: Stack, key: str, model: dict) -> None:
    stack.create("no-model", {**model, "model": "/nowhere/model.gguf"})
    error = expect_failure(stack, key, "no-model", "model_not_found")
    assert "/nowhere/model.gguf" in error["message"]
    assert error["exit_code"] == 1
    assert error["log_tail"]


def test_model_file_that_is_no_model(stack: Stack, key: str, model: dict, tmp_path: Path) -> None:
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"not a model")
    stack.create("no-gguf", {**model, "model": str(fake)})
    answer = stack.chat("no-gguf", key)
    assert answer.status_code == 502
    assert answer.json()["error"]["exit_code"] == 1


def test_flag_that_the_backend_does_not_know(stack: Stack, key: str, model: dict) -> None:
    stack.create("bad-flag", {**model, "extra_args": {"no_such_flag": "1"}})
    error = expect_failure(stack, key, "bad-flag", "bad_flag")
    assert "no-such-flag" in error["message"]


def test_executable_that_is_not_there(stack: Stack, key: str, model: dict) -> None:
    stack.create("no-program", model, command_override="/nowhere/llama-server")
    error = expect_failure(stack, key, "no-program", "executable_not_found")
    assert "/nowhere/llama-server" in error["message"]


def test_port_that_a_stranger_took(stack: Stack, key: str, model: dict) -> None:
    last = stack.last_port
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", last))
        stranger.listen()
        stack.create("no-port", {**model, "port": last})
        error = expect_failure(stack, key, "no-port", "port_in_use")
    assert str(last) in error["message"]
    # It should start once the stranger has gone; by hand, because the failure holds back requests.
    assert stack.call("POST", "/api/v1/instances/no-port/start?wait=60").status_code == 200
    assert stack.chat("no-port", key).status_code == 200
    stack.call("POST", "/api/v1/instances/no-port/stop")


def test_memory_that_is_not_enough(stack: Stack, key: str, model: dict, tmp_path: Path) -> None:
    embedded = ROOT / "instances" / "backends" / "embedded"
    wrapper = tmp_path / "small-llama-server"
    wrapper.write_text(
        f'#!/bin/sh\nulimit -v 700000\nexec "{sys.executable}" -I "{embedded}" "$@"\n'
    )
    wrapper.chmod(0o755)
    options = {**model, "ctx_size": 4_000_000, "fit": "off"}
    stack.create("no-memory", options, command_override=str(wrapper))
    expect_failure(stack, key, "no-memory", "out_of_memory")


def test_backend_killed_while_it_loads_is_explained_at_once(
    stack: Stack, key: str, model: dict
) -> None:
    stack.create("killed", model)
    stack.call("POST", "/api/v1/instances/killed/start")
    backend = until(lambda: stack.backends("killed"), "a process")[0]
    backend.send_signal(signal.SIGSEGV)
    ended = time.monotonic()
    failure = stack.until_status("killed", "failed", 30)["failure"]
    # It should not have waited for anything to run out, such as the time for a start.
    assert time.monotonic() - ended < 15
    assert failure["reason"] == "crashed"
    assert "SIGSEGV" in failure["details"]


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Stack]:
    yield from running_stack(
        tmp_path / "impatient", LLAMACTL_START_TIMEOUT="20", LLAMACTL_STOP_TIMEOUT="2"
    )


@pytest.mark.slow
def test_backend_that_never_gets_healthy_is_ended(
    impatient: Stack, model: dict, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter.gguf"
    os.mkfifo(adapter)
    impatient.create("hangs", {**model, "lora": [str(adapter)]}, auto_restart=False)
    impatient.call("POST", "/api/v1/instances/hangs/start")
    backend = until(lambda: impatient.backends("hangs"), "a process")[0]
    # The outer process of the embedded server looks at the first bytes only.
    adapter.write_bytes(b"GGUF")
    until(backend.children, "llama.cpp's own process", seconds=15)
    # Open once llama.cpp reads it, which it then does until it is told to end, and longer.
    with adapter.open("wb"):
        os.killpg(backend.pid, signal.SIGSTOP)
        failure = impatient.until_status("hangs", "failed", 60)["failure"]
    assert failure["reason"] == "timeout"
    until(lambda: not impatient.backends("hangs"), "no process", seconds=10)


def test_failure_is_forgotten_by_the_next_start(stack: Stack, key: str, model: dict) -> None:
    stack.create("mended", {**model, "model": "/nowhere/model.gguf"})
    expect_failure(stack, key, "mended", "model_not_found")
    stack.call("PUT", "/api/v1/instances/mended", {"backend_options": model})
    assert stack.chat("mended", key).status_code == 200
    assert "failure" not in stack.instance("mended") or not stack.instance("mended")["failure"]
