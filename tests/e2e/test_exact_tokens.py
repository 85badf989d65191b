"""Counted tokens against the counters of a real llama.cpp (``--metrics``)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import requests

from tests.support.stack import Stack
from tests.support.until import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.llama_cpp,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

NAME = "exact"
"""Of no other module: the stack's usage is that of all."""
MESSAGES = [{"role": "user", "content": "Count from one to a hundred."}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 6},
    "/v1/completions": {"prompt": "One, two, three,", "max_tokens": 6},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 6},
    "/v1/responses": {"input": "Count from one to a hundred.", "max_output_tokens": 6},
}
FINISHED = 120


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object]) -> str:
    stack.create(NAME, {**model, "metrics": True})
    key = stack.new_key()
    assert stack.chat(NAME, key, max_tokens=1).status_code == 200
    return key


def counters(stack: Stack) -> tuple[int, int]:
    """The generated tokens, and those of the prompts that were not cached."""
    text = stack.call("GET", "/api/v1/instances/exact/proxy/metrics").text
    found = dict(line.split() for line in text.splitlines() if line.startswith("llamacpp:"))
    names = "tokens_predicted_total", "prompt_tokens_total"
    generated, prompt = (int(float(found[f"llamacpp:{name}"])) for name in names)
    return generated, prompt


def usage(stack: Stack) -> dict[str, Any]:
    rows = stack.call("GET", "/api/v1/usage?group_by=instance").json()["rows"]
    return next((row for row in rows if row["instance"] == NAME), {"requests": 0})


def counted(stack: Stack) -> tuple[int, int]:
    row = usage(stack)
    return row["completion_tokens"], row["prompt_tokens"] - row["cached_tokens"]


def requests_of(number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests of each path, streamed or not, whose prompts are partly cached."""
    kinds = list(product(BODIES.items(), (True, False)))
    for at in range(number):
        (path, body), is_streamed = kinds[at % len(kinds)]
        yield path, {**body, "model": NAME, "stream": is_streamed, "ignore_eos": True}


def test_tokens_equal_llama_cpps_own_counters(stack: Stack, key: str) -> None:
    until(lambda: usage(stack)["requests"] == 1, "the first request written", seconds=20)
    assert counted(stack) == counters(stack)
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {key}"
        for path, document in requests_of(FINISHED):
            answer = session.post(stack.url + path, json=document, timeout=60)
            assert answer.status_code == 200, answer.text
    until(lambda: usage(stack)["requests"] == 1 + FINISHED, "all written", seconds=20)
    # It should be exact where the response has come to its end.
    assert counted(stack) == counters(stack)
    assert usage(stack)["estimated_tokens"] == 0
