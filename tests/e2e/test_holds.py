"""Clients that repeat a request: they start no broken backend again, and undo no stop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from instances.supervisor.state.failure_hold import FIRST_SECONDS
from tests.support.lazy_import import lazy_import
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack, running_stack
from tests.support.until import until

if TYPE_CHECKING:
    import openai
else:
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

STOP_HOLD_SECONDS = 8
RETRIES = 30
"""As many as codex sends for one prompt."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two web processes, so that no hold is one process's own."""
    yield from running_stack(
        tmp_path_factory.mktemp("holds") / "data",
        LLAMACTL_OPERATOR_STOP_HOLD=str(STOP_HOLD_SECONDS),
        LLAMACTL_WEB_PROCESSES="2",
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("program") / "fake-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{FAKE_BACKEND}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def key(stack: Stack, program: Path) -> str:
    settings = {"command_override": str(program)}
    stack.create("broken", {"model": "fake?exit_code=3&print=no such device"}, **settings)
    stack.create("fine", {"model": "fake"}, **settings)
    return stack.new_key()


def ask(stack: Stack, key: str, name: str) -> requests.Response:
    """Ask on a new connection, so that any web process answers."""
    return stack.chat(name, key)


def error_of(answer: requests.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    return error


def starts(stack: Stack, name: str) -> int:
    log: str = stack.call("GET", f"/api/v1/instances/{name}/logs").text
    return log.count(f"=== Instance {name} started at")


def most_starts(seconds: float) -> int:
    """The starts that holds of 5, 10, 20 … s allow in this time."""
    return 1 + math.floor(math.log2(seconds / FIRST_SECONDS + 1))


def test_retries_do_not_start_a_broken_backend_again_and_again(stack: Stack, key: str) -> None:
    begin = time.monotonic()
    answers = [ask(stack, key, "broken") for _ in range(RETRIES)]
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    assert starts(stack, "broken") <= most_starts(time.monotonic() - begin)
    held = [answer for answer in answers if "no request starts the instance" in answer.text]
    assert held
    assert error_of(held[0])["exit_code"] == 3
    # Most clients show the message alone.
    assert all("The log says: no such device" in error_of(each)["message"] for each in answers)


def test_operators_start_and_edit_try_again_at_once(stack: Stack, key: str) -> None:
    ask(stack, key, "broken")
    path = "/api/v1/instances/broken"
    before = starts(stack, "broken")
    assert stack.call("POST", f"{path}/start?wait=30").status_code == 502
    assert starts(stack, "broken") == before + 1
    # It was no request, so the next one tries once more; then it holds again.
    assert ask(stack, key, "broken").status_code == 502
    assert "no request starts the instance" in ask(stack, key, "broken").text
    count = starts(stack, "broken")
    options = stack.instance("broken")["options"]
    assert not stack.call("PUT", path, options).json()["changed"]
    assert "no request starts the instance" not in ask(stack, key, "broken").text
    assert starts(stack, "broken") == count + 1


def test_retries_do_not_undo_an_operators_stop(stack: Stack, key: str) -> None:
    assert ask(stack, key, "fine").status_code == 200
    begin = time.monotonic()
    stack.call("POST", "/api/v1/instances/fine/stop")
    # The backend answers until the web processes know of the stop.
    until(lambda: ask(stack, key, "fine").status_code == 503, "a refusal")
    answer = ask(stack, key, "fine")
    if time.monotonic() - begin < STOP_HOLD_SECONDS:
        assert (answer.status_code, error_of(answer)["code"]) == (503, "stopped_by_operator")
        assert 1 <= int(answer.headers["Retry-After"]) <= STOP_HOLD_SECONDS
        assert "x-should-retry" not in answer.headers
        assert starts(stack, "fine") == 1
    # The openai package obeys Retry-After: its second request is after the hold.
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=2) as client:
        client.chat.completions.create(
            model="fine", messages=[{"role": "user", "content": "hello"}], max_tokens=1
        )
    assert time.monotonic() - begin >= STOP_HOLD_SECONDS
    assert starts(stack, "fine") == 2


def test_operators_start_undoes_the_stop_at_once(stack: Stack, key: str) -> None:
    stack.call("POST", "/api/v1/instances/fine/stop")
    assert stack.call("POST", "/api/v1/instances/fine/start?wait=60").status_code == 200
    until(lambda: ask(stack, key, "fine").status_code == 200, "an answer", seconds=20)
