"""Each error that the seed's swagger documents can be provoked, in the seed's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from instances import lifecycle
from keys.issuing import issue
from llamactl.api.views import ApiView
from tests.contract.operations import MANAGEMENT, SWAGGER, Operation, carry_out, filled

pytestmark = pytest.mark.django_db


def documented(status: int) -> list[Operation]:
    return [
        operation
        for operation in MANAGEMENT
        if str(status) in SWAGGER["paths"][operation[1]][operation[0].lower()]["responses"]
    ]


@pytest.fixture
def key_id() -> int:
    lifecycle.create("x", {}, cause="test")
    return issue(name="app", permission_mode="allow_all")[0].pk


def broken(operation: Operation) -> tuple[str, bytes]:
    """A path and a body of which one breaks a rule of the operation."""
    _, path = operation
    if "{name}" in path:
        return path.replace("{name}", "no%20name%21"), b""
    if "{id}" in path:
        return path.replace("{id}", "one"), b""
    return path, b'{"name": "", "command": ""}'


@pytest.mark.parametrize("operation", documented(400), ids=" ".join)
def test_a_request_that_breaks_a_rule_gets_400(
    api: Client, key_id: int, operation: Operation
) -> None:
    path, body = broken(operation)
    response: Any = api.generic(operation[0], path, body, content_type="application/json")
    assert response.status_code == 400, response.content
    assert set(response.json()) == {"error", "details"}


def test_the_lines_of_a_log_must_be_a_number(api: Client, key_id: int) -> None:
    response: Any = api.get("/api/v1/instances/x/logs?lines=many")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")


@pytest.mark.parametrize("operation", documented(404), ids=" ".join)
def test_what_is_not_there_gets_404(api: Client, key_id: int, operation: Operation) -> None:
    path = filled(operation, key_id=key_id + 1).replace("/main", "/nowhere")
    response: Any = api.generic(operation[0], path)
    assert response.status_code == 404
    assert response.json()["error"] == "not_found"


@pytest.mark.parametrize("operation", documented(500), ids=" ".join)
def test_a_fault_of_ours_gets_500_and_keeps_its_details(
    api: Client, key_id: int, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the fault")

    monkeypatch.setattr(ApiView, "initial", fail)
    api.raise_request_exception = False
    response: Any = carry_out(api, operation, key_id=key_id)
    assert response.status_code == 500
    assert set(json.loads(response.content)) == {"error", "details"}
    assert b"secret" not in response.content
