"""Checks of the registered toy; ``test_toy`` runs them in a process of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from instances.admin.form import InstanceForm
from instances.backends.environment import clean_environment
from instances.backends.exit_reasons import classify_exit
from instances.backends.registry import BACKENDS, backend_for
from instances.models import Instance
from instances.states import Status
from llamactl.config import AppConfig, current, load
from llamactl.config.schema import BackendSections
from llamactl.openapi.views import document
from tests.instances.supervisor.conftest import (  # noqa: F401  fixtures
    NodeUnderTest,
    fake_backend,
    node,
)
from tests.support.paths import FAKE_BACKEND

DATABASE = pytest.mark.django_db


def test_the_config_has_its_section_with_its_defaults(tmp_path: Path) -> None:
    section = current().backends.toy_server
    assert (section.command, section.args) == ("toy-server", ["serve"])

    sections: BackendSections = {"toy-server": BACKENDS["toy"].config_model}
    (tmp_path / "llamactl.yaml").write_text("backends: {toy-server: {docker: {enabled: true}}}")
    environ = {"HOME": str(tmp_path), "LLAMACTL_TOYSERVER_COMMAND": "/opt/toy"}
    config = load(environ, tmp_path, backends=sections)
    assert config.config_warnings == ()
    section = config.backends.toy_server
    assert section.command == "/opt/toy"
    assert section.docker is not None
    assert (section.docker.enabled, section.docker.image) == (True, "toy:latest")


def test_the_api_shows_its_section(api: Client) -> None:
    shown = api.get("/api/v1/config").json()["backends"]["toy-server"]
    assert (shown["command"], shown["docker"]["image"]) == ("toy-server", "toy:latest")


@DATABASE
def test_it_is_created_over_the_api(api: Client) -> None:
    options = {"backend_type": "toy", "backend_options": {"model": "/m/car.toy", "w": 4}}
    response = api.post("/api/v1/instances/car", options, content_type="application/json")
    assert response.status_code == 201, response.content
    stored = response.json()["options"]
    assert stored["backend_type"] == "toy"
    assert stored["backend_options"]["wheels"] == 4
    assert Instance.objects.get(name="car").summary == "car.toy"


def test_the_schema_names_it_with_its_examples() -> None:
    schema = document()
    assert "toy" in schema["components"]["schemas"]["BackendType"]["enum"]
    create = schema["paths"]["/api/v1/instances/{name}"]["post"]["requestBody"]
    assert "Toy" in create["content"]["application/json"]["examples"]
    assert "/api/v1/backends/toy-server/parse-command" in schema["paths"]


@DATABASE
def test_the_admin_offers_it_with_its_fields(rf: Any) -> None:
    form = InstanceForm()
    assert ("toy", "Toy") in form.fields["backend_type"].choices  # type: ignore[attr-defined]
    assert form.fields["wheels"].label == "Wheels"
    assert form.fields["model"].widget.attrs["data-backends"].split() == list(BACKENDS)


def test_a_pasted_command_line_becomes_options(api: Client) -> None:
    response = api.post(
        "/api/v1/backends/toy-server/parse-command",
        {"command": "TOY_COLOUR=red /opt/toy-server serve -m car.toy --wheels 3 --horn loud"},
        content_type="application/json",
    )
    assert response.status_code == 200, response.content
    assert response.json() == {
        "backend_type": "toy",
        "backend_options": {"model": "car.toy", "wheels": 3, "extra_args": {"horn": "loud"}},
        "environment": {"TOY_COLOUR": "red"},
    }


@DATABASE
def test_a_dry_run_shows_its_command(api: Client) -> None:
    options = {"backend_type": "toy", "backend_options": {"model": "/m/car.toy", "wheels": 4}}
    response = api.post(
        "/api/v1/instances/car?dry_run=true", options, content_type="application/json"
    )
    body = response.json()
    port = str(body["options"]["backend_options"]["port"])
    assert body["command"] == [
        *("toy-server", "serve", "--model", "/m/car.toy", "--wheels", "4"),
        *("--host", "127.0.0.1", "--port", port),
    ]
    assert [found["field"] for found in body["errors"]] == ["backend_options.model"]
    assert "build the toy" in body["warnings"][0]["message"]


def test_its_sign_of_failure_is_recognised() -> None:
    found = classify_exit(exit_code=1, signal=None, log_tail=["toy: no wheel 5", "bye"])
    assert found == ("bad_flag", "Wheel 5 is missing.")


def test_its_variables_are_passed_on() -> None:
    assert clean_environment({"TOY_QUIET": "0", "OTHER": "1"})["TOY_QUIET"] == "0"
    assert clean_environment({})["TOY_QUIET"] == "1"


@DATABASE
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_it_starts_and_its_failure_is_told(
    node: NodeUnderTest,  # noqa: F811
    override: Callable[..., AppConfig],
) -> None:
    program = {"command": sys.executable, "args": ["-S", "-E", str(FAKE_BACKEND)]}
    section = backend_for("toy").config_section(current())
    override(backends={"toy_server": section.model_copy(update=program)})
    node.start()

    node.create("car", backend_type="toy", backend_options={"wheels": 4})
    node.ask_start("car")
    assert node.reaches(Status.RUNNING, "car").pid

    node.create(
        "wreck",
        backend_type="toy",
        auto_restart=False,
        FAKE_PRINT="toy: no wheel 2",
        FAKE_EXIT_CODE="1",
    )
    node.ask_start("wreck")
    failure = node.reaches(Status.FAILED, "wreck").failure
    assert failure is not None
    assert failure["details"].startswith("Wheel 2 is missing.")
