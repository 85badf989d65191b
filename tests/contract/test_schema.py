"""The OpenAPI document: whole, true to the errors there are, and good enough to learn from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from django.test import Client

from instances.errors import BackendStartFailed, InstanceNotFound, InstanceShuttingDown
from llamactl.core.error_format import document_for, family_of
from llamactl.core.errors import InvalidKey, InvalidRequest, LlamactlError, MissingKey, UriTooLong
from llamactl.openapi.views import document
from nodes.errors import NodeDrained
from proxy import errors
from tests.contract.operations import OPERATIONS, SWAGGER

DOCUMENT: dict[str, Any] = document()

Operation = tuple[str, str, dict[str, Any]]


def operations() -> Iterator[Operation]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Return ``part``, or the target of its reference."""
    while "$ref" in part:
        found: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The request and each response: name, media type and description."""
    for media_type, said in operation.get("requestBody", {}).get("content", {}).items():
        yield "request", media_type, said
    for status, answer in operation["responses"].items():
        for media_type, said in resolved(answer).get("content", {}).items():
            yield str(status), media_type, said


def examples_of(said: dict[str, Any]) -> list[Any]:
    if "example" in said:
        return [said["example"]]
    return [example["value"] for example in said.get("examples", {}).values()]


def validate(value: object, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


each_operation = pytest.mark.parametrize(
    ("method", "path", "operation"),
    list(operations()),
    ids=[f"{method} {path}" for method, path, _ in operations()],
)


@each_operation
def test_an_operation_says_what_it_is_and_which_key_it_needs(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"]
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    is_open = (method, path) in {
        ("get", "/llama-cpp/{name}/"),
        ("get", "/health"),
        ("get", "/v1/health"),
    }
    is_management = path.startswith("/api/v1")
    if is_open:
        kind = "Needs no key."
    elif is_management:
        kind = "Needs a **management key**."
    else:
        kind = "Needs an **inference key** for the instance, or a management key."
    assert operation["description"].endswith(kind)
    places: list[dict[str, list[str]]] = [{"Bearer": []}, {"ApiKeyAuth": []}, {"ApiKeyQuery": []}]
    assert operation["security"] == ([] if is_open else places)
    assert ("401" in operation["responses"]) is not is_open


@each_operation
def test_every_body_has_an_example_that_obeys_its_schema(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    for what, media_type, said in bodies(operation):
        examples = examples_of(said)
        assert examples, (what, media_type)
        if not media_type.startswith("multipart"):
            for example in examples:
                validate(example, said["schema"])


@each_operation
def test_every_part_of_the_path_is_explained(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    described = {it["name"]: it for it in operation.get("parameters", []) if it["in"] == "path"}
    assert set(described) == {part[1:-1] for part in path.split("/") if part.startswith("{")}
    for parameter in described.values():
        assert parameter["description"]
        for example in examples_of(parameter):
            validate(example, parameter["schema"])


def test_names_of_operations_are_unique_and_spelt_alike() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and name.islower() for name in names)


def test_every_schema_is_used_and_every_reference_leads_somewhere() -> None:
    referred: set[str] = set()

    def walk(part: object) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                resolved(part)
                referred.add(part["$ref"].rpartition("/")[2])
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(DOCUMENT)
    # Named in a sentence: the parts of an event stream.
    assert set(DOCUMENT["components"]["schemas"]) - referred == {"ChatCompletionChunk"}
    assert set(DOCUMENT["components"]["responses"]) <= referred


def test_nothing_speaks_of_the_inside() -> None:
    # It should hold no docstring that was written for readers of the code.
    for part in (DOCUMENT["paths"], DOCUMENT["components"]):
        assert "``" not in str(part)
        assert "the seed" not in str(part).lower()


def test_the_document_is_the_same_each_time() -> None:
    document.cache_clear()
    assert str(document()) == str(DOCUMENT)


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_each_operation_of_the_seed_is_there_under_its_tag(operation: tuple[str, str]) -> None:
    method, path = operation
    tags = SWAGGER["paths"][path][method.lower()]["tags"]
    # The seed's swagger writes "/v1/" and means everything below it.
    ours = DOCUMENT["paths"]["/v1/{path}" if path == "/v1/" else path][method.lower()]
    assert ours["tags"] == tags


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an error, without any field that it does not name."""
    schema = copy.deepcopy(schema)
    for part in (schema, schema["properties"]["error"]):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema


SHAPES = [
    ("/v1/chat/completions", "OpenAIError"),
    ("/v1/audio/transcriptions", "OpenAIError"),
    ("/v1/messages", "AnthropicError"),
    ("/api/v1/instances/gemma/proxy/x", "Error"),
    ("/llama-cpp/gemma/props", "Error"),
    ("/llama-cpp/gemma/v1/models", "OpenAIError"),
]
ERRORS: list[LlamactlError] = [
    MissingKey(),
    InvalidKey(),
    errors.InstanceNotPermitted(),
    errors.ModelNotFound("gemma"),
    errors.RequestTooLarge(1),
    UriTooLong(1),
    errors.BackendUnreachable("it does not answer"),
    errors.StartNotRequested(),
    errors.PathNotExposed("/x"),
    errors.NotLlamaCpp("gemma"),
    errors.NoWebUI("gemma", "/"),
    NodeDrained("main"),
    InvalidRequest("no model"),
    InstanceNotFound("gemma"),
    InstanceShuttingDown("later", retry_after=5),
    BackendStartFailed("it crashed", reason="crashed", exit_code=1, log_tail=["no"]),
    BackendStartFailed("it is gone", reason="timeout", exit_code=None, log_tail=[]),
]


@pytest.mark.parametrize(("path", "shape"), SHAPES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_the_proxy_refuses_with_is_what_is_documented(
    path: str, shape: str, error: LlamactlError
) -> None:
    if shape == "Error" and error.status == 401:
        shape = "AuthenticationError"
    schema = strict(DOCUMENT["components"]["schemas"][shape])
    validate(document_for(family_of(path), error), schema)


def test_each_refusal_of_the_proxy_is_an_example_somewhere() -> None:
    shown = {
        name
        for answer in DOCUMENT["components"]["responses"].values()
        for name in answer["content"]["application/json"]["examples"]
    }
    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, LlamactlError)
        and value.__module__ == errors.__name__
    }
    # After the first byte there is no status.
    assert ours - {"BackendFailed", "BackendBrokeOff"} <= shown


@pytest.mark.parametrize("path", ["/api/schema?format=json", "/swagger/doc.json"])
def test_tools_get_json_without_a_key(path: str) -> None:
    response: Any = Client().get(path)
    assert response.status_code == 200
    assert "json" in response["Content-Type"]
    document = response.json()
    assert document["openapi"].startswith("3.1")
    assert list(document["paths"]) == list(DOCUMENT["paths"])


@pytest.mark.parametrize("accept", ["text/html", "image/png", "nonsense", "*/*", ""])
@pytest.mark.parametrize("path", ["/docs", "/api/schema", "/api/schema?format=xml"])
def test_an_odd_accept_header_does_no_harm(path: str, accept: str) -> None:
    # It should not be 406, which browsers and tools can do nothing about.
    assert Client().get(path, headers={"accept": accept}).status_code == 200


def test_json_is_what_those_get_who_say_so() -> None:
    def type_for(accept: str) -> str:
        return Client().get("/api/schema", headers={"accept": accept})["Content-Type"]

    assert type_for("application/json, */*") == "application/vnd.oai.openapi+json"
    assert type_for("*/*") == "application/vnd.oai.openapi"


@pytest.mark.parametrize("path", ["/swagger/doc.json", "/swagger", "/api/schema", "/docs"])
def test_nothing_of_it_is_there_when_switched_off(override: Any, path: str) -> None:
    override(server={"enable_swagger": False})
    assert Client().get(path).status_code == 404


def test_somebody_new_is_told_where_to_start() -> None:
    introduction = DOCUMENT["info"]["description"]
    for word in ("Start here", "Authorization: Bearer", "X-API-Key", "api_key", "curl"):
        assert word in introduction
    # It should name operations that exist.
    for method, path in (
        ("post", "/api/v1/instances/{name}"),
        ("post", "/v1/chat/completions"),
        ("post", "/api/v1/auth/keys"),
    ):
        assert f"{method.upper()} {path}" in introduction
        assert method in DOCUMENT["paths"][path]
