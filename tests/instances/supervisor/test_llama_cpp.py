"""The real llama.cpp under supervision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from instances.states import Status
from llamactl.config import AppConfig, current
from tests.instances.supervisor.conftest import NodeUnderTest, children

pytestmark = pytest.mark.llama_cpp


@pytest.fixture
def llama_cpp(node: NodeUnderTest, override: Callable[..., AppConfig]) -> NodeUnderTest:
    """A node with the embedded server, as without an installed llama-server."""
    backend = current().backends.llama_cpp
    default = type(backend).model_validate({})
    override(
        backends={"llama_cpp": backend.model_copy(update={"command": default.command, "args": []})},
        instances={"stop_timeout": 5.0},
    )
    node.start()
    return node


def test_a_real_model_is_started_asked_and_stopped(
    llama_cpp: NodeUnderTest, gemma_model: Path
) -> None:
    llama_cpp.create(
        model=str(gemma_model), backend_options={"ctx_size": 512, "threads": 1, "parallel": 1}
    )
    llama_cpp.ask_start()
    instance = llama_cpp.reaches(Status.RUNNING, seconds=30)
    answer = requests.post(
        f"http://127.0.0.1:{instance.port}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4},
        headers={"Authorization": f"Bearer key-{instance.pk}"},
        timeout=30,
    )
    assert answer.status_code == 200
    refused = requests.post(
        f"http://127.0.0.1:{instance.port}/v1/chat/completions", json={}, timeout=30
    )
    assert refused.status_code == 401
    llama_cpp.ask_stop()
    llama_cpp.reaches(Status.STOPPED, seconds=10)
    assert not children()


def test_a_model_that_is_not_there_fails_with_its_reason(
    llama_cpp: NodeUnderTest, tmp_path: Path
) -> None:
    llama_cpp.create(model=str(tmp_path / "missing.gguf"))
    llama_cpp.ask_start()
    failure = llama_cpp.reaches(Status.FAILED, seconds=30).failure
    assert failure is not None
    assert failure["reason"] == "model_not_found"
    assert "missing.gguf" in "".join(failure["log_tail"])


def test_its_memory_can_be_limited_and_a_mapped_model_does_not_count(
    llama_cpp: NodeUnderTest, gemma_model: Path
) -> None:
    options: dict[str, Any] = {
        "model": str(gemma_model),
        "backend_options": {"ctx_size": 512, "threads": 1},
    }
    llama_cpp.create("modest", **options, limits={"memory_mb": 1000, "nice": 5})
    llama_cpp.ask_start("modest")
    instance = llama_cpp.reaches(Status.RUNNING, "modest", seconds=40)
    limits = Path(f"/proc/{instance.pid}/limits").read_text()
    assert str(1000 * 2**20) in limits
    llama_cpp.create("starved", **options, limits={"memory_mb": 100})
    llama_cpp.ask_start("starved")
    failure = llama_cpp.reaches(Status.FAILED, "starved", seconds=40).failure
    assert failure is not None
