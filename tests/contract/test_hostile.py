"""Every management operation against requests that no honest client sends."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from instances import lifecycle
from instances.models import Instance
from keys.issuing import issue
from keys.models import InferenceKey
from llamactl.api.json_parser import MAX_BODY_BYTES
from tests.contract.operations import MANAGEMENT, Operation, carry_out, filled

pytestmark = pytest.mark.django_db

BODIES = {
    "garbage": b"\x00\xff\xfe{",
    "cut off": b'{"name": "x", "command": "a',
    "list": b"[1, 2]",
    "text": b'"x"',
    "number": b"1e308",
    "not a number": b'{"name": NaN}',
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "large": b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}',
    "many digits": b'{"expires_at": ' + b"9" * 10_000 + b"}",
    "NUL": b'{"name": "a\\u0000b", "command": "a\\u0000b"}',
    "half a character": b'{"name": "\\ud800", "command": "\\ud800"}',
    "no UTF-8": '{"name": "ü"}'.encode("latin-1"),
    "a form": b"name=x&command=y",
}
PARAMETERS = [
    "?lines=%00",
    "?lines=%F0%9F%98%80",
    "?wait=%00",
    "?follow=%00",
    "?" + "a=1&" * 3000,
    "?%FF=%FF",
]


@pytest.fixture
def key_id(settings: Any) -> int:
    config = settings.LLAMACTL
    llama_cpp = config.backends.llama_cpp.model_copy(update={"command": "/bin/echo"})
    backends = config.backends.model_copy(update={"llama_cpp": llama_cpp})
    settings.LLAMACTL = config.model_copy(update={"backends": backends})
    lifecycle.create("x", {}, cause="test")
    return issue(name="app", permission_mode="allow_all")[0].pk


@pytest.mark.parametrize("operation", MANAGEMENT, ids=" ".join)
def test_without_a_good_key_nothing_happens(key_id: int, operation: Operation) -> None:
    _, for_all = issue(name="all", permission_mode="allow_all")
    before = (Instance.objects.values_list().get(), InferenceKey.objects.count())
    for headers in (
        {},
        {"x-api-key": "wrong"},
        {"authorization": f"Bearer {for_all}"},
        {"x-api-key": for_all},
        {"authorization": "Basic eDp5"},
    ):
        response: Any = carry_out(Client(headers=headers), operation, key_id=key_id)
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "authentication_error"
    assert (Instance.objects.values_list().get(), InferenceKey.objects.count()) == before


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    "operation", [it for it in MANAGEMENT if it[0] in ("POST", "PUT")], ids=" ".join
)
def test_a_bad_body_is_refused_or_ignored(
    api: Client, key_id: int, operation: Operation, body: bytes
) -> None:
    before = (Instance.objects.count(), InferenceKey.objects.count())
    path = filled(operation, key_id=key_id)
    response: Any = api.generic(operation[0], path, body, content_type="application/json")
    if path.endswith(("/start", "/stop", "/restart")):
        # It should not read a body that it has no use for.
        assert response.status_code == 200
        return
    assert response.status_code in (400, 413)
    assert set(response.json()) == {"error", "details"}
    assert len(response.content) < 1000
    assert (Instance.objects.count(), InferenceKey.objects.count()) == before


@pytest.mark.parametrize("operation", MANAGEMENT, ids=" ".join)
def test_bad_parameters_never_break_it(api: Client, key_id: int, operation: Operation) -> None:
    for parameters in PARAMETERS:
        path = filled(operation, key_id=key_id) + parameters
        response = api.generic(operation[0], path, b"", content_type="application/json")
        assert response.status_code < 500, parameters
