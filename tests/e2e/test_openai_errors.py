"""The openai client and bare HTTP through llamactl: errors, disconnects, credentials, bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import requests

from tests.support.lazy_import import lazy_import
from tests.support.stack import Stack
from tests.support.until import until, until_async

if TYPE_CHECKING:
    import openai
else:
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]

GREETING: list[Any] = [{"role": "user", "content": "Say hello to Zoë 👋"}]
SAYING = "Grüße, Zoë 👋 你好"


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object]) -> str:
    stack.create("demo", model)
    stack.create("broken", {**model, "model": "/nowhere/model.gguf"})
    stack.create("by-hand", model, on_demand_start=False)
    return stack.new_key()


@pytest.fixture(scope="module")
def client(stack: Stack, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as client:
        yield client


# Errors


def counted(stack: Stack, key: str) -> tuple[openai.OpenAI, list[int]]:
    """A client with its usual retries, and the statuses of all the answers that it got."""
    statuses: list[int] = []
    hooks = {"response": [lambda response: statuses.append(response.status_code)]}
    http = openai.DefaultHttpxClient(event_hooks=hooks)
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, http_client=http), statuses


@pytest.mark.parametrize("is_stream", [False, True])
def test_failed_start_is_not_tried_again_by_the_clients_retries(
    stack: Stack, key: str, is_stream: bool
) -> None:
    def starts() -> int:
        log: str = stack.call("GET", "/api/v1/instances/broken/logs").text
        return log.count("started at")

    # An operator's stop ends the hold of the last failure.
    stack.call("POST", "/api/v1/instances/broken/stop")
    stack.until_status("broken", "stopped")
    before = starts()
    client, statuses = counted(stack, key)
    with client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="broken", messages=GREETING, stream=is_stream)
    assert statuses == [502]
    assert starts() == before + 1
    assert caught.value.code == "backend_start_failed"
    assert "/nowhere/model.gguf" in caught.value.message
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["reason"] == "model_not_found"


def test_instance_that_may_not_start_is_asked_once(stack: Stack, key: str) -> None:
    client, statuses = counted(stack, key)
    with client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="by-hand", messages=GREETING)
    assert (statuses, caught.value.code) == ([503], "instance_not_running")


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=GREETING)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg"
    "GAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize(
    ("path", "name", "document"),
    [
        (
            "/v1/chat/completions",
            "demo",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is this?"},
                            {"type": "image_url", "image_url": {"url": IMAGE}},
                        ],
                    }
                ]
            },
        ),
        (
            "/v1/chat/completions",
            "demo",
            {"messages": [{"role": "user", "content": "long prompt " * 20_000}]},
        ),
        ("/v1/chat/completions", "demo", {"messages": "none"}),
        ("/v1/embeddings", "demo", {"input": "of a model that was not started for them"}),
        ("/v1/rerank", "demo", {"query": "a", "documents": ["b"]}),
        ("/v1/audio/speech", "demo", {"input": "an endpoint that llama.cpp doesn't have"}),
    ],
    ids=["image", "too-long", "no-messages", "no-embeddings", "no-rerank", "no-endpoint"],
)
def test_backends_error_is_passed_on_unchanged(
    stack: Stack, key: str, path: str, name: str, document: dict[str, object]
) -> None:
    stack.call("POST", f"/api/v1/instances/{name}/start")
    stack.until_status(name, "running")
    body = json.dumps({"model": name, **document})
    answer = requests.post(
        stack.url + path, data=body, headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    port = stack.instance(name)["options"]["backend_options"]["port"]
    backend_key = stack.backends(name)[0].environ()["LLAMA_API_KEY"]
    direct = requests.post(
        f"http://127.0.0.1:{port}{path}",
        data=body,
        headers={"Authorization": f"Bearer {backend_key}"},
        timeout=60,
    )
    assert answer.status_code == direct.status_code >= 400
    assert answer.content == direct.content
    assert answer.headers["Content-Type"] == direct.headers["Content-Type"]


def test_prompt_over_the_context_is_a_bad_request(client: openai.OpenAI) -> None:
    long: list[Any] = [{"role": "user", "content": "long prompt " * 20_000}]
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.chat.completions.create(model="demo", messages=long)


# Disconnects


def cancellations(stack: Stack) -> int:
    """Count the cancelled tasks in the log; without a stream a cancellation takes seconds."""
    log: str = stack.call("GET", "/api/v1/instances/demo/logs").text
    return log.count("cancel task")


ENDLESS: dict[str, Any] = {
    "model": "demo",
    "messages": GREETING,
    "max_tokens": 900,
    "extra_body": {"ignore_eos": True},
}


def test_request_that_timed_out_is_given_up_by_the_backend(
    stack: Stack, client: openai.OpenAI
) -> None:
    client.chat.completions.create(model="demo", messages=GREETING, max_tokens=1)
    before = cancellations(stack)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**ENDLESS)
    until(lambda: cancellations(stack) == before + 1, "the request given up")


@pytest.mark.parametrize("is_stream", [False, True])
def test_cancelled_task_is_given_up_by_the_backend(stack: Stack, key: str, is_stream: bool) -> None:
    async def ask(client: openai.AsyncOpenAI) -> None:
        answer: Any = await client.chat.completions.create(**ENDLESS, stream=is_stream)
        async for _ in answer:
            pass

    async def cancel() -> None:
        async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=key) as client:
            task = asyncio.create_task(ask(client))
            await until_async(lambda: stack.busy_slots("demo"), "a busy slot", seconds=60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before = cancellations(stack)
    asyncio.run(cancel())
    until(lambda: cancellations(stack) == before + 1, "the request given up")


# Programs that speak HTTP themselves


def chat_body(**fields: object) -> dict[str, object]:
    return {"model": "demo", "messages": GREETING, "max_tokens": 2, **fields}


@pytest.mark.parametrize(
    "credentials",
    [
        lambda key: {"headers": {"Authorization": f"bearer {key}"}},
        lambda key: {"headers": {"Authorization": f"BEARER {key}"}},
        lambda key: {"headers": {"X-API-Key": key}},
        lambda key: {"params": {"api_key": key}},
    ],
    ids=["bearer", "BEARER", "X-API-Key", "query"],
)
def test_key_may_stand_where_the_program_puts_it(
    stack: Stack, key: str, credentials: Callable[[str], dict[str, Any]]
) -> None:
    answer = httpx2.post(
        f"{stack.url}/v1/chat/completions", json=chat_body(), timeout=60, **credentials(key)
    )
    assert answer.status_code == 200, answer.text


def test_key_in_the_query_is_in_no_log(stack: Stack, key: str) -> None:
    for method, path, secret in (
        ("POST", "/v1/chat/completions", key),
        ("GET", "/v1/chat/completions", key),
        ("POST", "/v1/nothing", key),
        ("GET", "/api/v1/instances", stack.management_key),
        ("GET", "/api/v1/nothing", stack.management_key),
        ("GET", "/api/v1/instances/demo/proxy/props", stack.management_key),
    ):
        requests.request(
            method, f"{stack.url}{path}?api_key={secret}", json=chat_body(), timeout=60
        )
    logs = [stack.output, *stack.data_dir.rglob("*.log")]
    assert len(logs) > 1
    for log in logs:
        text = log.read_text(errors="replace")
        assert "api_key=" not in text, log
        assert key not in text, log


def test_lower_case_bearer_opens_the_management_api_too(stack: Stack) -> None:
    headers = {"authorization": f"bearer {stack.management_key}"}
    assert httpx2.get(f"{stack.url}/api/v1/version", headers=headers).status_code == 200


def test_body_in_chunks_without_a_length_or_a_type(stack: Stack, key: str) -> None:
    whole = json.dumps(chat_body()).encode()
    answer = requests.post(
        f"{stack.url}/v1/chat/completions",
        data=(whole[at : at + 10] for at in range(0, len(whole), 10)),
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


def test_events_are_read_line_by_line_over_one_connection(stack: Stack, key: str) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {key}"
        for _ in range(3):
            answer = session.post(
                f"{stack.url}/v1/chat/completions",
                json=chat_body(stream=True),
                stream=True,
                timeout=60,
            )
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            lines = [line for line in answer.iter_lines() if line]
            assert all(line.startswith(b"data: ") for line in lines)
            assert lines[-1] == b"data: [DONE]"
