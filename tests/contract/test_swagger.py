from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from django.test import Client

from instances import lifecycle
from keys.issuing import issue
from tests.contract.operations import (
    MANAGEMENT,
    OPERATIONS,
    PROXIED,
    SWAGGER,
    Operation,
    carry_out,
    promised_names,
    success_of,
    without_nulls,
)

pytestmark = pytest.mark.django_db

OFTEN_ABSENT = {
    *("command_override", "docker_enabled", "environment"),
    *("auto_restart", "idle_timeout", "max_restarts", "on_demand_start", "restart_delay"),
}
"""Fields of instance.Options that a parsed command doesn't speak of, in the Go program neither."""


@pytest.fixture
def key_id(settings: Any) -> int:
    """An instance, a key that opens it, and a llama-server that says something."""
    config = settings.LLAMACTL
    llama_cpp = config.backends.llama_cpp.model_copy(update={"command": "/bin/echo"})
    backends = config.backends.model_copy(update={"llama_cpp": llama_cpp})
    settings.LLAMACTL = config.model_copy(update={"backends": backends})
    instance = lifecycle.create("x", {}, cause="test")
    key, _ = issue(name="app", permission_mode="per_instance", instance_ids=[instance.pk])
    return key.pk


def test_every_operation_is_either_ours_or_the_proxys() -> None:
    assert len(OPERATIONS) == 40
    assert set(OPERATIONS) >= PROXIED
    assert len(MANAGEMENT) == 24


@pytest.mark.parametrize("operation", MANAGEMENT, ids=" ".join)
def test_a_success_is_as_the_seed_promises(api: Client, key_id: int, operation: Operation) -> None:
    status, schema = success_of(operation)
    response = carry_out(api, operation, key_id=key_id)
    assert response.status_code == status, response.content
    if schema is None:
        assert response.content == b""
    elif schema == {"type": "string"}:
        assert response["Content-Type"] == "text/plain; charset=utf-8"
    else:
        assert response["Content-Type"] == "application/json"
        body = without_nulls(response.json())
        jsonschema.validate(body, {**schema, "definitions": SWAGGER["definitions"]})


@pytest.mark.parametrize("operation", MANAGEMENT, ids=" ".join)
def test_no_field_that_the_seed_has_is_missing(
    api: Client, key_id: int, operation: Operation
) -> None:
    _, schema = success_of(operation)
    promised = set(promised_names(schema or {})) - OFTEN_ABSENT
    if promised:
        body: Any = carry_out(api, operation, key_id=key_id).json()
        for item in body if isinstance(body, list) else [body]:
            assert promised <= set(item)


@pytest.mark.parametrize("operation", MANAGEMENT, ids=" ".join)
def test_our_schema_has_it_too(operation: Operation) -> None:
    method, path = operation
    paths = Client().get("/api/schema?format=json").json()["paths"]
    assert method.lower() in paths[path]
    responses = paths[path][method.lower()]["responses"]
    assert str(success_of(operation)[0]) in responses
    assert "401" in responses
