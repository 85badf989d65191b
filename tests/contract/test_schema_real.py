"""The real llama.cpp's answers, held to the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import requests

from llamactl.openapi.views import document
from tests.support.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]

DOCUMENT = document()


@pytest.fixture(scope="module")
def stack(
    shared_stack: Stack, tmp_path_factory: pytest.TempPathFactory, gemma_model: Path
) -> Iterator[Stack]:
    """The instances that the document's examples speak of."""
    options = {"model": str(gemma_model), "ctx_size": 2048, "parallel": 1, "threads": 1}
    shown = {"metrics": True, "props": True, "slots": True}
    slots = str(tmp_path_factory.mktemp("slots"))
    shared_stack.create("gemma", {**options, **shown, "slot_save_path": slots})
    shared_stack.call("POST", "/api/v1/instances/gemma/start?wait=60")
    shared_stack.create("embedder", {**options, "embeddings": True, "pooling": "mean"})
    yield shared_stack
    shared_stack.clear()


def post(stack: Stack, path: str, body: dict[str, Any]) -> requests.Response:
    return requests.post(
        stack.url + path,
        json=body,
        headers={"Authorization": f"Bearer {stack.management_key}"},
        timeout=120,
    )


def events_of(response: requests.Response) -> list[bytes]:
    """Split as bytes: of text, some letters would be taken for the ends of lines."""
    lines = response.content.split(b"\n")
    return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]


def check(path: str, value: object) -> None:
    answer = DOCUMENT["paths"][path]["post"]["responses"]["200"]
    schema = answer["content"]["application/json"]["schema"]
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
    ],
)
def test_the_examples_can_be_sent_and_are_answered_as_documented(stack: Stack, path: str) -> None:
    said = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    examples = said.get("examples") or {"only": {"value": said["example"]}}
    for example in examples.values():
        # A small model may talk for ever.
        limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
        response = post(stack, path, {**example["value"], limit: 8})
        assert response.status_code == 200, (example, response.text)
        if example["value"].get("stream"):
            assert response.headers["content-type"].startswith("text/event-stream")
            assert len(events_of(response)) > 1
        else:
            check(path, response.json())


def test_each_event_of_a_stream_is_a_chunk_as_documented(stack: Stack) -> None:
    body = {"model": "gemma", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    response = post(stack, "/v1/chat/completions", {**body, "stream": True})
    events = events_of(response)
    assert events.pop() == b"[DONE]"
    schema = {
        "$ref": "#/components/schemas/ChatCompletionChunk",
        "components": DOCUMENT["components"],
    }
    for event in events:
        jsonschema.Draft202012Validator(schema).validate(json.loads(event))


BELOW = "/llama-cpp/{name}/"
NOT_OF_A_SMALL_CHAT_MODEL = {
    *("infill", "rerank", "reranking", "audio/transcriptions"),
    # Of router mode, and of an answer that is being made.
    *("models/load", "models/sse", "v1/stream"),
}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
        if path.startswith(BELOW) and path.removeprefix(BELOW) not in NOT_OF_A_SMALL_CHAT_MODEL
    ],
)
def test_below_llama_cpp_it_is_answered_as_documented(stack: Stack, method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    said = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = said.get("examples") or {"only": {"value": said.get("example")}}
    query = {it["name"]: it["example"] for it in operation["parameters"] if it["in"] == "query"}
    name = "embedder" if "embedding" in path else "gemma"
    for example in examples.values():
        response = requests.request(
            method,
            stack.url + path.format(name=name, path="chat/completions", slot=0),
            params=query,
            json=example["value"],
            headers={"Authorization": f"Bearer {stack.management_key}"},
            timeout=120,
        )
        assert response.status_code == 200, response.text
        content = operation["responses"]["200"]["content"]
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in content
        if media_type == "application/json":
            whole = {**content[media_type]["schema"], "components": DOCUMENT["components"]}
            jsonschema.Draft202012Validator(whole).validate(response.json())
