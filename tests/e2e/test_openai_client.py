"""The openai client through llamactl: each endpoint that llama.cpp has, and errors.

``test_real_model.py`` has the simplest calls, this module those of an application.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest

from tests.support.lazy_import import lazy_import
from tests.support.stack import Stack

if TYPE_CHECKING:
    import openai
else:
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.slow, pytest.mark.timeout(180)]

GREETING: list[Any] = [{"role": "user", "content": "Say hello to Zoë 👋"}]
SAYING = "Grüße, Zoë 👋 你好"

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}
# A model this small calls no tool by itself; it repeats an earlier call.
WEATHER_TALK: list[Any] = [
    {"role": "user", "content": "Weather in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call-1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
    {"role": "user", "content": "Weather in Paris?"},
]
WEATHER_CALL: dict[str, Any] = {
    "model": "demo",
    "messages": WEATHER_TALK,
    "tools": [WEATHER],
    "tool_choice": "required",
    "temperature": 0,
    "max_tokens": 80,
    "stop": ["</tool_call>"],
}


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object], tool_model: dict[str, object]) -> str:
    stack.create("demo", tool_model)
    stack.create("embedder", {**model, "embeddings": True, "pooling": "mean"})
    stack.create("reranker", {**model, "reranking": True, "pooling": "rank"})
    return stack.new_key()


@pytest.fixture(scope="module")
def client(stack: Stack, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as client:
        yield client


def schema(name: str, document: dict[str, object]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": document}}


# Chat


def test_streamed_text_is_the_text_that_comes_in_one_piece(client: openai.OpenAI) -> None:
    call: dict[str, Any] = {
        "model": "demo",
        "messages": GREETING,
        "max_tokens": 12,
        "temperature": 0,
    }
    # The first fills the cache, which changes the arithmetic a little.
    client.chat.completions.create(**call)
    whole = client.chat.completions.create(**call).choices[0].message.content
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**call, stream=True)
    ]
    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_usage_comes_with_the_last_event_where_it_is_asked_for(client: openai.OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model="demo",
        messages=GREETING,
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 4
    assert {chunk.usage for chunk in chunks} == {None}
    assert {chunk.model for chunk in chunks} == {"demo"}


def test_other_peoples_letters_survive_both_ways(client: openai.OpenAI) -> None:
    # The schema leaves one answer, so the letters have to get to the model and back.
    call: dict[str, Any] = {
        "model": "demo",
        "messages": GREETING,
        # Letter by letter and byte by byte, if it likes to.
        "max_tokens": 200,
        "temperature": 0,
        "response_format": schema("saying", {"const": SAYING}),
    }
    whole = client.chat.completions.create(**call).choices[0].message.content
    assert whole is not None
    assert json.loads(whole) == SAYING
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**call, stream=True)
    ]
    assert json.loads("".join(pieces)) == SAYING


def test_logprobs_choices_and_seed_reach_the_model(client: openai.OpenAI) -> None:
    call: dict[str, Any] = {
        "model": "demo",
        "messages": GREETING,
        "max_tokens": 3,
        "temperature": 1.5,
        "logprobs": True,
        "top_logprobs": 2,
        "n": 2,
        "seed": 7,
        "extra_body": {"ignore_eos": True},
    }
    client.chat.completions.create(**call)
    first, second = (client.chat.completions.create(**call) for _ in range(2))
    assert [choice.index for choice in first.choices] == [0, 1]
    logprobs = first.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [len(token.top_logprobs) for token in logprobs.content] == [2, 2, 2]
    texts = [[choice.message.content for choice in answer.choices] for answer in (first, second)]
    assert texts[0] == texts[1]


def test_many_at_once_by_the_async_client(stack: Stack, key: str) -> None:
    async def ask_all() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=key) as client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="demo",
                        messages=GREETING,
                        max_tokens=20,
                        temperature=0,
                        response_format=schema("number", {"const": number}),
                    )
                    for number in range(8)
                )
            )

    answers = asyncio.run(ask_all())
    # It should not mix up the answers.
    assert [json.loads(answer.choices[0].message.content) for answer in answers] == [*range(8)]


# Tools


def test_tool_call_comes_back_parsed(client: openai.OpenAI) -> None:
    answer: Any = client.chat.completions.create(**WEATHER_CALL)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    # It should have shown the tool to the model, beside the talk itself.
    bare: Any = client.chat.completions.create(model="demo", messages=WEATHER_TALK, max_tokens=1)
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens + 20


def test_streamed_tool_call_is_put_together_by_the_client(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**WEATHER_CALL) as stream:
        events = list(stream)
        final: Any = stream.get_final_completion().choices[0]
    pieces = [
        event.arguments_delta
        for event in events
        if event.type == "tool_calls.function.arguments.delta"
    ]
    assert len(pieces) > 3
    assert json.loads("".join(pieces)) == {"city": "Paris"}
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls[0].function.name == "get_weather"


def test_tools_result_is_read_by_the_model(client: openai.OpenAI) -> None:
    answered = [
        *WEATHER_TALK,
        {**WEATHER_TALK[1]},
        {"role": "tool", "tool_call_id": "call-1", "content": "rain, " * 20},
    ]
    longer, shorter = (
        client.chat.completions.create(
            model="demo", messages=messages, tools=[WEATHER], max_tokens=1
        ).usage
        for messages in (answered, WEATHER_TALK)
    )
    assert longer is not None
    assert shorter is not None
    assert longer.prompt_tokens > shorter.prompt_tokens + 40


# Structured output


class Reply(pydantic.BaseModel):
    mood: Literal["glad", "sad"]
    is_short: bool


def test_structured_output_is_of_the_type_that_was_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo", messages=GREETING, max_tokens=60, temperature=0, response_format=Reply
    )
    assert isinstance(answer.choices[0].message.parsed, Reply)


# The other endpoints


def test_text_completion_streamed(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="demo",
            prompt="Once upon a time",
            max_tokens=6,
            stream=True,
            extra_body={"ignore_eos": True},
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_embeddings_in_the_clients_own_encoding(client: openai.OpenAI) -> None:
    # Unless told otherwise this client asks for base64.
    answer = client.embeddings.create(model="embedder", input=["a cat", "a kitten", "tax law"])
    cat, kitten, tax = (entry.embedding for entry in answer.data)
    assert len(cat) == 640

    def alike(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert alike(cat, cat) == pytest.approx(1, abs=0.01)
    assert alike(cat, kitten) > alike(cat, tax)


def test_rerank(client: openai.OpenAI) -> None:
    answer: Any = client.post(
        "/rerank",
        body={"model": "reranker", "query": "a cat", "documents": ["a kitten", "tax law"]},
        cast_to=object,
    )
    assert sorted(result["index"] for result in answer["results"]) == [0, 1]
    assert all(isinstance(result["relevance_score"], float) for result in answer["results"])


def test_response(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="demo", input="Say hello.", max_output_tokens=6)
    assert answer.output_text
    assert answer.model == "demo"
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0


def test_response_streamed(client: openai.OpenAI) -> None:
    # Not by responses.stream(): it wants an output_index, which llama.cpp leaves out.
    events: list[Any] = list(
        client.responses.create(
            model="demo",
            input="Say hello.",
            max_output_tokens=6,
            stream=True,
            extra_body={"ignore_eos": True},
        )
    )
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(pieces) > 3
    assert "".join(pieces) == events[-1].response.output_text


def test_response_that_calls_a_tool(client: openai.OpenAI) -> None:
    talk: Any = [
        {"role": "user", "content": "Weather in Rome?"},
        {
            "type": "function_call",
            "call_id": "call-1",
            "name": "get_weather",
            "arguments": '{"city": "Rome"}',
        },
        {"type": "function_call_output", "call_id": "call-1", "output": "sunny"},
        {"role": "user", "content": "Weather in Paris?"},
    ]
    tool: Any = {"type": "function", **WEATHER["function"]}
    answer = client.responses.create(
        model="demo",
        input=talk,
        tools=[tool],
        tool_choice="required",
        temperature=0,
        max_output_tokens=30,
    )
    call: Any = answer.output[0]
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert json.loads(call.arguments) == {"city": "Paris"}


def test_model_is_retrieved_by_its_id(client: openai.OpenAI) -> None:
    assert client.models.retrieve("demo") in list(client.models.list())
    for unknown in ("nope", "demo/nope"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(unknown)
        assert caught.value.code == "model_not_found"
