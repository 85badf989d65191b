"""The worker is killed, told to end, or frozen, while its backends answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.faults import victims
from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

FROZEN_SECONDS = 7
"""Longer than every timeout of the broker's clients."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    directory = tmp_path_factory.mktemp("llamactl") / "data"
    with running(directory, program, "--keep-backends") as stack:
        stack.run_fake("one")
        stack.run_fake("two")
        stack.create_fake("cold")
        yield stack


@pytest.fixture(scope="module")
def key(stack: FakeStack) -> str:
    return stack.new_key()


def test_streams_outlive_the_worker_and_the_next_one_takes_over(stack: FakeStack, key: str) -> None:
    if stack.backends("cold"):
        stack.stop_instance("cold")
    before = {name: stack.one_backend(name).pid for name in ("one", "two")}
    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()
        with victims.coming_back(stack, "worker"):
            victims.worker(stack).kill()
            # It should be started by the next worker, however soon it is asked for.
            assert stack.chat("cold", key).status_code == 200
        traffic.until_served()
    assert traffic.counts("worker SIGKILL").is_flawless
    assert {name: stack.one_backend(name).pid for name in ("one", "two")} == before

    # An adopted backend can be restarted, its crash is noticed, and it can be stopped.
    stack.call("POST", "/api/v1/instances/one/restart")
    until(lambda: [p.pid for p in stack.backends("one")] not in ([], [before["one"]]), "a new one")
    crashes = stack.crashes("two")
    stack.one_backend("two").kill()
    until(lambda: stack.crashes("two") == crashes + 1, "the crash recorded")
    stack.until_status("two", "running")
    assert stack.chat("two", key).status_code == 200
    stack.stop_instance("two")
    assert stack.backends("two") == []
    stack.start_instance("two")
    stack.until_status("one", "running")
    stack.one_backend("one")


def test_a_worker_that_ends_in_order_leaves_its_backends_to_the_next(
    stack: FakeStack, key: str
) -> None:
    before = {name: stack.one_backend(name).pid for name in ("one", "two")}
    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()
        for _ in range(2):
            with victims.coming_back(stack, "worker"):
                victims.worker(stack).terminate()
        traffic.until_served()
    assert traffic.counts("worker SIGTERM, twice").is_flawless
    assert {name: stack.one_backend(name).pid for name in ("one", "two")} == before


def test_a_frozen_worker_delays_starts_and_stops_and_nothing_else(
    stack: FakeStack, key: str
) -> None:
    stack.stop_instance("cold") if stack.backends("cold") else None
    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()
        answers: list[requests.Response] = []
        asks = threading.Thread(target=lambda: answers.append(stack.chat("cold", key)))
        with victims.frozen([victims.worker(stack)]):
            asks.start()
            traffic.is_over.wait(FROZEN_SECONDS)
        asks.join(60)
        traffic.until_served()
    assert traffic.counts("worker SIGSTOP").is_flawless
    assert [answer.status_code for answer in answers] == [200]
    stack.one_backend("cold")


def test_without_keep_backends_requests_wait_for_the_next_workers(
    tmp_path: Path, program: Path
) -> None:
    with running(tmp_path / "data", program) as stack:
        stack.run_fake("one")
        key = stack.new_key()
        with Traffic(stack, key, ["one"]) as traffic:
            traffic.until_streaming()
            with victims.coming_back(stack, "worker"):
                victims.worker(stack).terminate()
            traffic.until_served()
        assert traffic.counts("worker SIGTERM, backends end with it").is_flawless
        stack.one_backend("one")


@pytest.mark.llama_cpp
def test_a_real_model_outlives_the_worker(stack: FakeStack, key: str, gemma_model: Path) -> None:
    stack.create("real", {"model": str(gemma_model), "threads": 1, "ctx_size": 1024})
    stack.start_instance("real")
    backend = stack.one_backend("real")
    with (
        victims.coming_back(stack, "worker"),
        requests.post(
            f"{stack.url}/v1/chat/completions",
            json={
                "model": "real",
                "stream": True,
                "max_tokens": 400,
                "ignore_eos": True,
                "messages": [{"role": "user", "content": "Count."}],
            },
            headers={"Authorization": f"Bearer {key}"},
            stream=True,
            timeout=120,
        ) as response,
    ):
        lines: list[bytes] = []
        for line in response.iter_lines():
            if not lines:
                victims.worker(stack).kill()
            if line:
                lines.append(line)
    assert lines[-1] == b"data: [DONE]"
    finish = json.loads(lines[-2][6:])["choices"][0]["finish_reason"]
    assert finish == "length"
    assert len(lines) > 400
    assert stack.one_backend("real").pid == backend.pid
    stack.stop_instance("real")
    assert stack.backends("real") == []
