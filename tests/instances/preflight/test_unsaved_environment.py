"""Variables that load a program's code: a pasted command may hold any, to be looked at first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from instances import lifecycle
from instances.dry_run import dry_run_update, findings_of
from llamactl.config import current
from tests.instances.admin.test_pages import ADD, LIST
from tests.instances.admin.test_preflight import form_data

pytestmark = pytest.mark.django_db

LOADER = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME"]
OTHERS = [
    *("LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PYTHONSTARTUP", "PYTHONUSERBASE"),
    *("BASH_ENV", "ENV", "IFS", "GCONV_PATH", "LOCPATH", "MALLOC_PERTURB_", "GLIBC_TUNABLES"),
    *("NODE_OPTIONS", "PERL5LIB", "PERL5OPT", "GGML_BACKEND_PATH", "OPENSSL_CONF", "HOME"),
]


class Server:
    """A llama-server that writes its environment down."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.program = home / "llama-server"
        self.program.write_text(
            f'#!/bin/sh\nenv > {home}/environment\necho "--model FNAME"\necho "--port N"\n'
        )
        self.program.chmod(0o755)

    @property
    def environment(self) -> str:
        """What the program was given; empty if nothing has started it."""
        written = self.home / "environment"
        return written.read_text() if written.exists() else ""


@pytest.fixture
def planted(tmp_path: Path) -> Server:
    """A program of somebody else, which a pasted PATH leads to."""
    (tmp_path / "planted").mkdir()
    return Server(tmp_path / "planted")


@pytest.fixture
def installed(tmp_path: Path, override: Callable[..., Any]) -> Server:
    """The program of the config."""
    (tmp_path / "installed").mkdir()
    server = Server(tmp_path / "installed")
    backend = current().backends.llama_cpp.model_copy(update={"command": str(server.program)})
    override(backends={"llama_cpp": backend})
    return server


def document(**environment: str) -> dict[str, Any]:
    return {
        "backend_type": "llama_cpp",
        "backend_options": {"model": "org/m"},
        "environment": environment,
    }


def by_dry_run(api: Client, path: str) -> None:
    answer = api.post(
        "/api/v1/instances/x?dry_run=true", document(PATH=path), content_type="application/json"
    )
    assert answer.status_code == 200
    assert any("no program is asked" in each["message"] for each in answer.json()["warnings"])


def by_strict_create(api: Client, path: str) -> None:
    sent = document(PATH=path) | {"idle_timout": 1}
    answer = api.post("/api/v1/instances/x?strict=true", sent, content_type="application/json")
    assert answer.status_code == 400


def by_parse_command(api: Client, path: str) -> None:
    answer = api.post(
        "/api/v1/backends/llama-cpp/parse-command",
        json.dumps({"command": f"PATH={path} llama-server -m x"}),
        content_type="application/json",
    )
    assert answer.json()["environment"] == {"PATH": path}


def by_paste(api: Client, path: str) -> None:
    operator = Client()
    operator.force_login(User.objects.create_superuser("olga"))
    answer = operator.post(
        f"{LIST}parse-command/",
        {"backend_type": "llama_cpp", "command": f"PATH={path} llama-server -m x"},
    )
    assert any("no program is asked" in each["text"] for each in answer.json()["findings"])


def by_form(api: Client, path: str) -> None:
    operator = Client()
    operator.force_login(User.objects.create_superuser("olga"))
    data = form_data(operator, ADD, name="x", model="/nonexistent", environment=f"PATH={path}")
    assert operator.post(ADD, data).status_code == 200


@pytest.mark.parametrize(
    "door", [by_dry_run, by_strict_create, by_parse_command, by_paste, by_form]
)
def test_no_program_of_a_pasted_path_runs_before_it_is_saved(
    api: Client, planted: Server, door: Callable[[Client, str], None]
) -> None:
    door(api, f"{planted.home}:{os.environ['PATH']}")
    assert planted.environment == ""


@pytest.mark.parametrize("name", [*LOADER, *OTHERS])
def test_no_variable_reaches_a_program_before_it_is_saved(
    api: Client, installed: Server, name: str
) -> None:
    answer = api.post(
        "/api/v1/instances/x?dry_run=true",
        document(**{name: "/planted"}),
        content_type="application/json",
    )
    assert answer.status_code == 200
    assert "/planted" not in installed.environment
    # The others change nothing: the program was asked, without them.
    assert bool(installed.environment) is (name in OTHERS)


def test_a_saved_variable_is_used(planted: Server) -> None:
    path = f"{planted.home}:{os.environ['PATH']}"
    instance = lifecycle.create("x", document(PATH=path), cause="test")
    assert "environment" not in [each.field for each in findings_of(instance, {})]
    assert f"PATH={path}" in planted.environment
    # Another value in an update is not saved yet.
    (planted.home / "environment").unlink()
    os.utime(planted.program, (1, 1))
    changed = dry_run_update("x", document(PATH=f"{path}:/more"))
    assert "environment" in [each.field for each in changed.findings]
    assert planted.environment == ""
    unchanged = dry_run_update("x", document(PATH=path))
    assert "environment" not in [each.field for each in unchanged.findings]
    assert planted.environment
