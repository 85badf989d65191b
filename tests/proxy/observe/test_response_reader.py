"""Token counts in responses, as llama.cpp, vLLM and mlx_lm write them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from proxy.observe.response_reader import (
    PARSED_BYTES,
    TAIL_BYTES,
    ResponseReader,
    tokens_of_body,
)
from proxy.observe.tokens import LARGEST_COUNT, Tokens, tokens_in
from tests.support.loop_stall import MAX_STALL_SECONDS

OPENAI = {
    "completion_tokens": 9,
    "prompt_tokens": 21,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 20},
}
TIMINGS = {
    "cache_n": 20,
    "prompt_n": 1,
    "prompt_ms": 7.1,
    "predicted_n": 9,
    "predicted_ms": 100.0,
    "draft_n": 12,
    "draft_n_accepted": 5,
}
ANTHROPIC = {"cache_read_input_tokens": 20, "input_tokens": 1, "output_tokens": 9}
RESPONSES = {
    "input_tokens": 21,
    "output_tokens": 9,
    "total_tokens": 30,
    "input_tokens_details": {"cached_tokens": 20},
}
SAID = Tokens(prompt=21, cached=20, completion=9)
DRAFTED = SAID._replace(drafted=12, accepted=5)


def event(document: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def chunk(**fields: object) -> bytes:
    return event({"object": "chat.completion.chunk", "model": "m", **fields})


def content(text: str) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


ROLE = chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}])
FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = b"data: [DONE]\n\n"


def read(pieces: list[bytes]) -> tuple[Tokens | None, int]:
    reader = ResponseReader(pieces[0])
    for piece in pieces[1:]:
        reader.feed(piece)
    return reader.tokens(), reader.events


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"choices": [], "usage": OPENAI}, SAID),
        ({"choices": [], "usage": OPENAI, "timings": TIMINGS}, DRAFTED),
        ({"content": "x", "tokens_evaluated": 21, "timings": TIMINGS}, DRAFTED),
        # A build of llama.cpp before the details of a prompt.
        (
            {"usage": {"prompt_tokens": 21, "completion_tokens": 9}, "timings": {"cache_n": 20}},
            SAID,
        ),
        ({"type": "message", "content": [], "usage": ANTHROPIC}, SAID),
        (
            {"usage": {**ANTHROPIC, "input_tokens": 0, "cache_creation_input_tokens": 1}},
            SAID,
        ),
        ({"object": "response", "output": [], "usage": RESPONSES}, SAID),
        # Embeddings, and reranks of llama.cpp and of vLLM.
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}, "data": []}, Tokens(prompt=7)),
        ({"results": [], "usage": {"total_tokens": 7}}, Tokens(prompt=7)),
        # vLLM's transcription is billed by the second.
        ({"text": "x", "usage": {"type": "duration", "seconds": 3}}, Tokens()),
        ({"text": "x", "usage": {"input_tokens": 7, "output_tokens": 2}}, Tokens(7, 0, 2)),
        # llama.cpp answers several prompts with a list.
        (
            [{"timings": TIMINGS}, {"timings": {"prompt_n": 3, "predicted_n": 1}}, {}],
            Tokens(24, 20, 10, 12, 5),
        ),
        (
            {
                "usage": {
                    **OPENAI,
                    "completion_tokens_details": {
                        "accepted_prediction_tokens": 5,
                        "rejected_prediction_tokens": 7,
                    },
                }
            },
            DRAFTED,
        ),
    ],
)
def test_figures_of_each_api(document: Any, tokens: Tokens) -> None:
    assert tokens_in(document) == tokens
    for text in (json.dumps(document), json.dumps(document, separators=(",", ":"))):
        assert tokens_of_body(text.encode()) == tokens


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"[1]", b"null", b"{", b'{"usage":null}', b'{"usage":[1]}', b"\xff\xfe"],
)
def test_body_without_figures_has_no_counts(body: bytes) -> None:
    assert tokens_of_body(body) is None


@pytest.mark.parametrize(
    "count", [-1, True, 1.5, "9", None, [], 10**30, LARGEST_COUNT + 1, float("inf")]
)
def test_what_is_no_count_is_zero(count: object) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": 9, "prompt_tokens_details": count}
    assert tokens_in({"usage": usage}) == Tokens(completion=9)


def test_text_of_a_model_that_looks_like_figures_does_not_count() -> None:
    forged = '"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"draft_n":3}'
    document = {"choices": [{"message": {"content": forged}}], "usage": OPENAI}
    assert tokens_of_body(json.dumps(document).encode()) == SAID
    # It should not count in a long body either, where the figures are looked for.
    document = {"usage": OPENAI, "choices": [{"message": {"content": forged * 1000}}]}
    body = json.dumps(document, separators=(",", ":")).encode()
    assert len(body) > PARSED_BYTES
    assert tokens_of_body(body) == SAID


def test_arguments_of_a_tool_that_look_like_figures_do_not_count() -> None:
    call = {"type": "tool_use", "input": {"usage": {"prompt_tokens": 1000}}}
    assert tokens_of_body(json.dumps({"content": [call], "usage": ANTHROPIC}).encode()) == SAID


@pytest.mark.parametrize("piece_bytes", [1_000, 65_536, 10**9])
@pytest.mark.parametrize("is_first", [True, False])
def test_figures_at_either_end_of_megabytes(is_first: bool, piece_bytes: int) -> None:
    vectors = [{"index": 0, "embedding": [0.123456789] * 100_000}]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    document: dict[str, object] = {"usage": usage, "data": vectors}
    if not is_first:
        document = {"data": vectors, "usage": usage}
    body = json.dumps(document).encode()
    pieces = [body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes)]
    assert read(pieces)[0] == Tokens(prompt=7)


@pytest.mark.parametrize("piece_bytes", [100, 1_000, 65_536, 10**9])
def test_figures_with_something_long_behind_them(piece_bytes: int) -> None:
    """llama.cpp's /completion with n_probs."""
    probabilities = [{"token": "x", "top_logprobs": [{"token": "y"}] * 10}] * 500
    document = {"content": "x" * 20_000, "timings": TIMINGS, "more": probabilities}
    body = json.dumps(document, separators=(",", ":")).encode()
    pieces = [body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes)]
    assert read(pieces)[0] == DRAFTED


@pytest.mark.parametrize("unit", [b'"usage":{', b'"timings":{"a":[', b"["])
def test_hostile_figures_cost_no_time_and_raise_nothing(unit: bytes) -> None:
    # 900 figures within each other took 0.1 s of the event loop, and deep ones a RecursionError.
    said = json.dumps({"usage": OPENAI}).encode()
    body = b'{"usage":{"a":' + unit * (40_000 // len(unit))
    reader = ResponseReader(body[:8_000])
    reader.feed(body[8_000:])
    before = time.thread_time()
    assert reader.tokens() is None
    assert tokens_of_body(body) is None
    assert time.thread_time() - before < MAX_STALL_SECONDS
    assert tokens_of_body(said[:-1] + b"," + unit + b" " * PARSED_BYTES) == SAID


def test_stream_of_chat_with_llama_cpps_timings() -> None:
    stream = [ROLE, content("a"), content("b"), chunk(**FINISH, timings=TIMINGS), DONE]
    assert read(stream) == (DRAFTED, 5)


def test_stream_of_chat_with_the_usage_event() -> None:
    last = chunk(choices=[], usage=OPENAI, timings=TIMINGS)
    assert read([ROLE, content("a"), chunk(**FINISH), last, DONE])[0] == DRAFTED
    last = chunk(choices=[], usage=OPENAI)
    assert read([ROLE, content("a"), chunk(**FINISH), last, DONE])[0] == SAID


def test_stream_whose_events_say_null_until_the_last() -> None:
    stream = [chunk(choices=[{"delta": {"content": "x"}}], usage=None)] * 40
    assert read([*stream, chunk(choices=[], usage=OPENAI), DONE])[0] == SAID
    assert read(stream)[0] is None


@pytest.mark.parametrize("text_bytes", [10, 3 * TAIL_BYTES])
def test_stream_of_messages_has_the_prompt_at_its_begin(text_bytes: int) -> None:
    begin = {"type": "message_start", "message": {"usage": {**ANTHROPIC, "output_tokens": 0}}}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 100}}
    stream = [event(begin, "message_start")]
    stream += [event(delta, "content_block_delta")] * (text_bytes // 100 + 1)
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}
    stream += [event(end, "message_delta"), event({"type": "message_stop"}, "message_stop")]
    assert read(stream) == (SAID, len(stream))
    # It should know the prompt of a stream that broke off.
    assert read(stream[:-2])[0] == SAID._replace(completion=0)


@pytest.mark.parametrize("text_bytes", [10, 5 * TAIL_BYTES])
def test_stream_of_responses_has_all_in_its_last_event(text_bytes: int) -> None:
    text = 'he said "usage":{"input_tokens":1} ' * (text_bytes // 30 + 1)
    done = {"id": "r", "output": [{"content": text}], "usage": RESPONSES}
    stream = [
        event({"type": "response.created", "response": {"usage": None}}, "response.created"),
        event({"type": "response.output_text.delta", "delta": "x"}, "response.output_text.delta"),
        event({"type": "response.completed", "response": done}, "response.completed"),
    ]
    assert read(stream)[0] == SAID


@pytest.mark.parametrize("size", [1, 3, 17, 100, 5000])
def test_pieces_may_be_cut_anywhere(size: int) -> None:
    stream = b"".join([ROLE, *[content("token ")] * 500, chunk(**FINISH, timings=TIMINGS), DONE])
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert read(pieces)[0] == DRAFTED


def test_stream_with_line_ends_of_two_characters() -> None:
    stream = [ROLE, content("a"), chunk(choices=[], usage=OPENAI), DONE]
    assert read([each.replace(b"\n", b"\r\n") for each in stream]) == (SAID, 4)


def test_memory_of_a_long_stream_is_bounded() -> None:
    reader = ResponseReader(content("x"))
    for _ in range(20_000):
        reader.feed(content("x"))
    assert len(reader._tail) <= 2 * TAIL_BYTES
    assert reader.events == 20_001
