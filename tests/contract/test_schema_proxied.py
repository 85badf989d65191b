"""The proxy's answers to valid and invalid requests, held to its OpenAPI document.

A whole llamactl with the fake backend, because nothing less contains the proxy and its starts.
Only llamactl's own refusals are held to the document, not the backend's answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import requests

from llamactl.openapi.views import document
from proxy.openapi import paths as proxied_paths
from tests.contract.generated_cases import operations_of, schema_of, try_cases
from tests.support.lazy_import import lazy_import
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack

if TYPE_CHECKING:
    import schemathesis
    from schemathesis.schemas import BaseSchema
else:
    schemathesis = lazy_import("schemathesis")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CONFIG: dict[str, Any] = {
    "seed": 1,
    "generation": {"deterministic": True, "max-examples": 5, "database": "none"},
    # The document says of both when they come; and a backend may be killed by a request.
    "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 502, 503]}},
}
DOCUMENT = document()
PROXIED = {
    path: operations for path, operations in DOCUMENT["paths"].items() if path in proxied_paths()
}


@cache
def schema() -> BaseSchema:
    return schema_of({**DOCUMENT, "paths": PROXIED}, CONFIG)


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The instance that the document's examples speak of, running."""
    options: dict[str, Any] = {"command_override": str(FAKE_BACKEND), "auto_restart": True}
    shared_stack.create("gemma", {"model": "fake"}, **options)
    shared_stack.call("POST", "/api/v1/instances/gemma/start?wait=30")
    yield shared_stack
    shared_stack.clear()


@pytest.fixture(scope="module")
def session(stack: Stack) -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), operations_of(PROXIED))
def test_a_proxied_operation_never_breaks(
    stack: Stack, session: requests.Session, method: str, path: str
) -> None:
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            base_url=stack.url,
            session=session,
            headers={"Authorization": f"Bearer {stack.management_key}"},
            checks=[schemathesis.checks.not_a_server_error],
            timeout=30,
        )

    try_cases(schema(), method, path, check)


OPERATIONS = [
    pytest.param(method, path, operation, id=f"{method} {path}")
    for path, operations in PROXIED.items()
    for method, operation in operations.items()
    if operation["security"]
]


@pytest.mark.parametrize("key", [None, "llamactl-wrong"])
@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_without_a_good_key_it_answers_as_documented(
    stack: Stack,
    session: requests.Session,
    method: str,
    path: str,
    operation: dict[str, Any],
    key: str | None,
) -> None:
    url = stack.url + path.format(name="gemma", path="x", model="gemma", slot="0")
    response = session.request(
        method, url, json={"model": "gemma"}, headers={"X-API-Key": key} if key else {}, timeout=30
    )
    assert response.status_code == 401
    if method == "head":
        return
    refusal = operation["responses"]["401"]["$ref"].rpartition("/")[2]
    said = DOCUMENT["components"]["responses"][refusal]["content"]["application/json"]
    examples = [example["value"] for example in said["examples"].values()]
    assert response.json() in examples


FORMS = [
    pytest.param(path, said, id=path)
    for path, operations in PROXIED.items()
    for operation in operations.values()
    for media_type, said in operation.get("requestBody", {}).get("content", {}).items()
    if media_type == "multipart/form-data"
]


@pytest.mark.parametrize(("path", "said"), FORMS)
def test_a_form_is_sent_as_documented_and_reaches_the_instance_it_names(
    stack: Stack, session: requests.Session, path: str, said: dict[str, Any]
) -> None:
    fields = {**said["example"]}
    files = {"file": (fields.pop("file"), b"RIFF", "audio/wav")}

    def send(**more: str) -> requests.Response:
        return session.post(
            stack.url + path.format(name="gemma"),
            data=fields | more,
            files=files,
            headers={"X-API-Key": stack.management_key},
            timeout=30,
        )

    # It should be the backend that answers, with the names of the fields that it got.
    answer = send(model="gemma").json()
    assert set(answer["text"].split()) == {*fields, "model", "file"}
    if "model" in fields:
        refused = send()
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
