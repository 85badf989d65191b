"""The anthropic client through llamactl: llama.cpp's /v1/messages, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lazy_import import lazy_import
from tests.support.stack import Stack
from tests.support.until import until

if TYPE_CHECKING:
    import anthropic
else:
    anthropic = lazy_import("anthropic")

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]

GREETING: list[Any] = [{"role": "user", "content": "Say hello to Zoë 👋"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}
# A model this small calls no tool by itself; it repeats an earlier call.
WEATHER_TALK: list[Any] = [
    {"role": "user", "content": "Weather in Rome?"},
    {
        "role": "assistant",
        "content": [
            {"type": "tool_use", "id": "call-1", "name": "get_weather", "input": {"city": "Rome"}}
        ],
    },
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "call-1", "content": "sunny"}],
    },
    {"role": "user", "content": "Weather in Paris?"},
]
WEATHER_CALL: dict[str, Any] = {
    "model": "demo",
    "messages": WEATHER_TALK,
    "tools": [WEATHER],
    "tool_choice": {"type": "any"},
    "max_tokens": 80,
    "stop_sequences": ["</tool_call>"],
    "extra_body": {"temperature": 0},
}


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object], tool_model: dict[str, object]) -> str:
    stack.create("demo", tool_model)
    stack.create("broken", {**model, "model": "/nowhere/model.gguf"})
    stack.create("by-hand", model, on_demand_start=False)
    return stack.new_key()


def make_client(stack: Stack, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stack.url, **{"max_retries": 0, **options})


@pytest.fixture(scope="module")
def client(stack: Stack, key: str) -> Iterator[anthropic.Anthropic]:
    """It sends the key as X-API-Key."""
    with make_client(stack, api_key=key) as client:
        yield client


def test_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model="demo", max_tokens=6, system="Be brief.", messages=GREETING
    )
    assert message.model == "demo"
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.usage.output_tokens > 0


def test_key_may_come_as_a_bearer_token(stack: Stack, key: str) -> None:
    with make_client(stack, api_key=None, auth_token=key) as client:
        assert client.messages.create(model="demo", max_tokens=1, messages=GREETING).content


def test_streamed_message_is_put_together_by_the_client(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="demo", max_tokens=8, messages=GREETING, extra_body={"ignore_eos": True}
    ) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]
    pieces = [event.text for event in events if event.type == "text"]
    assert len(pieces) > 3
    assert final.content[0].type == "text"
    assert "".join(pieces) == final.content[0].text
    assert final.stop_reason == "max_tokens"


def test_tool_call_comes_back_parsed(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**WEATHER_CALL)
    (block,) = message.content
    assert message.stop_reason == "tool_use"
    assert (block.type, block.name, block.input) == ("tool_use", "get_weather", {"city": "Paris"})


def test_streamed_tool_call_is_put_together_by_the_client(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**WEATHER_CALL) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert len(pieces) > 3
    assert final.content[0].type == "tool_use"
    assert final.content[0].input == {"city": "Paris"}


def test_tokens_are_counted_with_the_tools(client: anthropic.Anthropic) -> None:
    bare = client.messages.count_tokens(model="demo", messages=WEATHER_TALK).input_tokens
    with_tools = client.messages.count_tokens(
        model="demo", messages=WEATHER_TALK, tools=[WEATHER]
    ).input_tokens
    assert with_tools > bare + 20
    # It should equal the cost of a message.
    usage = client.messages.create(model="demo", max_tokens=1, messages=WEATHER_TALK).usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == bare


def test_models_are_listed_and_retrieved(client: anthropic.Anthropic, key: str) -> None:
    assert [model.id for model in client.models.list()] == ["broken", "by-hand", "demo"]
    assert client.models.retrieve("demo").id == "demo"


# Errors


def error_of(caught: pytest.ExceptionInfo[anthropic.APIStatusError]) -> dict[str, Any]:
    """The error in Anthropic's shape; fails where it has another."""
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    error: dict[str, Any] = body["error"]
    return error


def test_wrong_key(stack: Stack, key: str) -> None:
    with make_client(stack, api_key="llamactl-wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(model="demo", max_tokens=1, messages=GREETING)
        assert error_of(caught)["type"] == "authentication_error"
        with pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.count_tokens(model="demo", messages=GREETING)
        assert error_of(caught)["type"] == "authentication_error"


def test_key_of_another_instance(stack: Stack, key: str) -> None:
    other = stack.instance("by-hand")["id"]
    limited = stack.new_key(permission_mode="per_instance", instance_ids=[other])
    with (
        make_client(stack, api_key=limited) as client,
        pytest.raises(anthropic.PermissionDeniedError) as caught,
    ):
        client.messages.create(model="demo", max_tokens=1, messages=GREETING)
    assert error_of(caught)["type"] == "permission_error"


def test_unknown_model(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="nope", max_tokens=1, messages=GREETING)
    error = error_of(caught)
    assert error["type"] == "not_found_error"
    assert "'nope'" in error["message"]


def test_streamed_request_is_refused_as_any_other(client: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.NotFoundError) as caught,
        client.messages.stream(model="nope", max_tokens=1, messages=GREETING),
    ):
        pass
    assert error_of(caught)["type"] == "not_found_error"


def counted(stack: Stack, key: str) -> tuple[anthropic.Anthropic, list[int]]:
    """A client with its usual retries, and the statuses of all the answers that it got."""
    statuses: list[int] = []
    hooks = {"response": [lambda response: statuses.append(response.status_code)]}
    http = anthropic.DefaultHttpxClient(event_hooks=hooks)
    return anthropic.Anthropic(base_url=stack.url, api_key=key, http_client=http), statuses


def test_failed_start_is_not_tried_again_by_the_clients_retries(stack: Stack, key: str) -> None:
    client, statuses = counted(stack, key)
    with client, pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(model="broken", max_tokens=1, messages=GREETING)
    assert statuses == [502]
    assert stack.call("GET", "/api/v1/instances/broken/logs").text.count("started at") == 1
    error = error_of(caught)
    assert (error["type"], error["reason"]) == ("api_error", "model_not_found")
    assert "/nowhere/model.gguf" in error["message"]


def test_instance_that_may_not_start_is_asked_once(stack: Stack, key: str) -> None:
    client, statuses = counted(stack, key)
    with client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="by-hand", max_tokens=1, messages=GREETING)
    assert (statuses, error_of(caught)["code"]) == ([503], "instance_not_running")


def test_async_stream_that_is_closed_is_given_up_by_the_backend(stack: Stack, key: str) -> None:
    async def read_one_and_leave() -> None:
        async with (
            anthropic.AsyncAnthropic(base_url=stack.url, api_key=key) as client,
            client.messages.stream(
                model="demo",
                max_tokens=900,
                messages=GREETING,
                extra_body={"ignore_eos": True},
            ) as stream,
        ):
            async for _ in stream.text_stream:
                break

    def cancellations() -> int:
        log: str = stack.call("GET", "/api/v1/instances/demo/logs").text
        return log.count("cancel task")

    before = cancellations()
    asyncio.run(read_one_and_leave())
    until(lambda: cancellations() == before + 1, "the request given up")
