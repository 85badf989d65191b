"""A backend that is killed under a request: an answer or an error, never a hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import pytest
import requests

from tests.support.stack import Stack
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.slow, pytest.mark.timeout(180)]

LONG = "The quick brown fox jumps over the lazy dog. " * 150


RESTARTING: dict[str, Any] = {"auto_restart": True, "max_restarts": 100, "restart_delay": 1}


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object]) -> str:
    stack.create("demo", {**model, "parallel": 1}, **RESTARTING)
    key = stack.new_key()
    assert stack.chat("demo", key, max_tokens=1).status_code == 200
    return key


def kill(stack: Stack, name: str = "demo") -> None:
    """Kill a backend as the kernel kills a process out of memory."""
    for process in stack.backends(name):
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):  # the outer one ends with its inner one
                each.kill()


@pytest.mark.parametrize("stream", [False, True])
def test_request_whose_backend_is_killed_before_the_first_token_is_answered(
    stack: Stack, key: str, *, stream: bool
) -> None:
    answers: list[requests.Response] = []
    prompt = f"{stream}: {LONG}"  # another one each time, as llama.cpp remembers the last
    document: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 4,
        "stream": stream,
    }
    thread = threading.Thread(target=lambda: answers.append(stack.chat("demo", key, **document)))
    thread.start()
    until(lambda: stack.busy_slots("demo") == 1, "one slot busy", seconds=20)
    before = [process.pid for process in stack.backends("demo")]
    kill(stack)
    thread.join(120)
    (answer,) = answers
    assert answer.status_code == 200, answer.text
    if stream:
        assert answer.text.rstrip().endswith("data: [DONE]")
        assert "error" not in answer.text
    else:
        assert answer.json()["usage"]["completion_tokens"] == 4
    assert [process.pid for process in stack.backends("demo")] != before


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_stream_whose_backend_is_killed_ends_with_an_error_event(
    stack: Stack, key: str, path: str
) -> None:
    document = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Count from one to a thousand."}],
        "max_tokens": 2000,
        "ignore_eos": True,
        "stream": True,
    }
    with requests.post(
        stack.url + path,
        json=document,
        headers={"Authorization": f"Bearer {key}"},
        stream=True,
        timeout=60,
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        first = [next(lines) for _ in range(8)]
        assert answer.status_code == 200, first
        kill(stack)
        # It should end by itself, as a whole message, and say why.
        last = list(lines)[-2:]
    if path == "/v1/messages":
        assert last[0] == b"event: error"
    error = json.loads(last[-1].removeprefix(b"data: "))
    assert error["error"]["code"] == "backend_broke_off"
    assert error.get("type") == ("error" if path == "/v1/messages" else None)
    until(lambda: stack.instance("demo")["status"] == "running", "demo runs again", seconds=60)
    assert stack.chat("demo", key, max_tokens=1).status_code == 200


def test_first_byte_is_what_server_timing_tells_of(stack: Stack, key: str) -> None:
    """llama.cpp says nothing of an answer before it has read the whole prompt."""
    answer = stack.chat(
        "demo", key, messages=[{"role": "user", "content": "Once more. " + LONG}], stream=True
    )
    pairs = answer.headers["Server-Timing"].split(",")
    figures = dict(pair.strip().split(";dur=") for pair in pairs)
    events = [line for line in answer.iter_lines() if b'"timings"' in line]
    prompt_ms = json.loads(events[-1].removeprefix(b"data: "))["timings"]["prompt_ms"]
    # It should be the time for the prompt, and not that for the headers, which come at once.
    assert float(figures["ttfb"]) >= prompt_ms * 0.9


@pytest.fixture
def with_its_own_port(stack: Stack, model: dict[str, object]) -> Iterator[int]:
    """The port of an instance ``fixed``, as its operator chose it."""
    port = stack.last_port
    stack.create("fixed", {**model, "port": port}, **RESTARTING)
    yield port
    stack.call("POST", "/api/v1/instances/fixed/stop")


def test_killed_amid_answers_it_comes_back_on_its_own_port(
    stack: Stack, key: str, with_its_own_port: int
) -> None:
    """Connections in TIME_WAIT must not count as another program on the port."""
    document = {"max_tokens": 80, "ignore_eos": True, "stream": True}
    assert stack.chat("fixed", key, max_tokens=1).status_code == 200
    before = stack.backends("fixed")
    with ThreadPoolExecutor() as clients:
        for _ in range(3):
            clients.submit(stack.chat, "fixed", key, **document)
        until(lambda: stack.busy_slots("fixed") == 3, "three slots busy", seconds=20)
        kill(stack, "fixed")
    until(
        lambda: stack.backends("fixed") not in ([], before),
        lambda: f"started again: {stack.instance('fixed')}",
        seconds=20,
    )
    stack.until_status("fixed", "running")
    (process,) = stack.backends("fixed")
    assert f"--port {with_its_own_port}" in " ".join(process.cmdline())
