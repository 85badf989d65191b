"""What the real llama.cpp answers, held to what the OpenAPI document says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import requests

from llamactl.openapi.views import document
from tests.e2e.stack import Stack, running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]

DOCUMENT = document()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, gemma_model: Path) -> Iterator[Stack]:
    """The instances that the document's examples speak of."""
    options = {"model": str(gemma_model), "ctx_size": 2048, "parallel": 1, "threads": 1}
    for stack in running_stack(tmp_path_factory.mktemp("llamactl"), LLAMACTL_STOP_TIMEOUT="2"):
        stack.create("gemma", options)
        stack.create("embedder", {**options, "embeddings": True, "pooling": "mean"})
        yield stack


def post(stack: Stack, path: str, body: dict[str, Any]) -> requests.Response:
    return requests.post(
        stack.url + path,
        json=body,
        headers={"Authorization": f"Bearer {stack.management_key}"},
        timeout=120,
    )


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
            events = [line for line in response.text.splitlines() if line.startswith("data: ")]
            assert len(events) > 1
        else:
            check(path, response.json())


def test_each_event_of_a_stream_is_a_chunk_as_documented(stack: Stack) -> None:
    body = {"model": "gemma", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    response = post(stack, "/v1/chat/completions", {**body, "stream": True})
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    schema = {
        "$ref": "#/components/schemas/ChatCompletionChunk",
        "components": DOCUMENT["components"],
    }
    for event in events:
        jsonschema.Draft202012Validator(schema).validate(json.loads(event))
