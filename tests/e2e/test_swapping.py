"""Models that don't fit together: mixed traffic, two web processes, one model at a time.

``a``, ``b`` and ``c`` are a real model. ``slow`` and ``other`` are the fake backend, where only the
length of an answer matters: a real model computes for 25 s to make a stream that lasts.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.lazy_import import lazy_import
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack, running_stack
from tests.support.until import until

if TYPE_CHECKING:
    import openai
else:
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.slow, pytest.mark.timeout(240)]


TOKENS_PER_SECOND = 40
STREAM_TOKENS = 320
"""A stream of 8 s, longer than ``LLAMACTL_SWAP_AFTER``."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_START_TIMEOUT="60",
        LLAMACTL_STOP_TIMEOUT="2",
        # The long streams take half a minute on a busy machine.
        LLAMACTL_DRAIN_TIMEOUT="120",
        LLAMACTL_WEB_PROCESSES="2",
        LLAMACTL_MAX_RUNNING_INSTANCES="1",
        LLAMACTL_DEFAULT_IDLE_TIMEOUT="60",
        LLAMACTL_SWAP_AFTER="3",
        LLAMACTL_UNHEALTHY_TIMEOUT="12",
        LLAMACTL_ON_DEMAND_START_TIMEOUT="100",
    )


@pytest.fixture(scope="module")
def keys(stack: Stack, model: dict[str, object]) -> tuple[str, str]:
    for name in ("a", "b", "c"):
        stack.create(name, model)
    for name in ("slow", "other"):
        stack.create(name, {"model": "fake"}, command_override=str(FAKE_BACKEND))
    return stack.new_key(name="one"), stack.new_key(name="other")


def history(stack: Stack) -> list[tuple[str, str, str]]:
    """(instance, new status, cause) of all, the oldest first."""
    with closing(sqlite3.connect(stack.data_dir / "llamactl.db", timeout=10)) as database:
        rows = database.execute(
            "select i.name, h.new, h.cause from instances_statuschange h"
            " join instances_instance i on i.id = h.instance_id order by h.id"
        ).fetchall()
    return [(name, new, cause) for name, new, cause in rows]


def loads_since(stack: Stack, rows: int) -> list[str]:
    return [name for name, new, _ in history(stack)[rows:] if new == "starting"]


def most_at_once(changes: list[tuple[str, str, str]]) -> int:
    """How many had a process at the same time: ``starting`` is written before there is one, and
    ``stopped`` when it has been reaped."""
    running: set[str] = set()
    most = 0
    for name, new, _ in changes:
        running = running - {name} if new in ("stopped", "failed") else running | {name}
        most = max(most, len(running))
    return most


def all_stopped(stack: Stack) -> None:
    names = [instance["name"] for instance in stack.call("GET", "/api/v1/instances").json()]
    for name in names:
        stack.call("POST", f"/api/v1/instances/{name}/stop")
    for name in names:
        stack.until_status(name, "stopped")


def make_client(stack: Stack, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0, timeout=120)


def ask(client: openai.OpenAI, name: str, **fields: Any) -> openai.types.chat.ChatCompletion:
    answer: openai.types.chat.ChatCompletion = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "Say hello."}],
        **{"max_tokens": 8, **fields},
    )
    return answer


def test_mixed_requests_at_once_cost_one_load_a_model(stack: Stack, keys: tuple[str, str]) -> None:
    all_stopped(stack)
    before = len(history(stack))
    order = ["a", "b", "a", "a", "c", "a", "b"]
    # Made before, which takes them longer than all the rest.
    clients = [make_client(stack, keys[0]) for _ in order]
    with ThreadPoolExecutor(len(order)) as pool:
        answers = []
        for client, name in zip(clients, order, strict=True):
            answers.append(pool.submit(ask, client, name))
            time.sleep(0.02)
        models = [answer.result().model for answer in answers]
    assert models == order
    # On a busy machine they may arrive in another order.
    assert sorted(loads_since(stack, before)) == ["a", "b", "c"]
    assert most_at_once(history(stack)[before:]) == 1
    causes = {cause for _, new, cause in history(stack)[before:] if new == "shutting_down"}
    assert causes == {"supervisor:evicted"}


def test_a_key_with_many_requests_does_not_keep_another_key_waiting(
    stack: Stack, keys: tuple[str, str]
) -> None:
    """50 requests for one model, without a pause, and 5 of another key for another model."""
    all_stopped(stack)
    finished: list[str] = []

    clients = {key: make_client(stack, key) for key in keys}

    def one(name: str, key: str) -> None:
        ask(clients[key], name, max_tokens=16, extra_body={"tps": TOKENS_PER_SECOND})
        finished.append(name)

    before = len(history(stack))
    with ThreadPoolExecutor(4) as many, ThreadPoolExecutor(5) as few:
        busy = [many.submit(one, "slow", keys[0]) for _ in range(50)]
        stack.until_status("slow", "running")
        quick = [few.submit(one, "other", keys[1]) for _ in range(5)]
        for each in [*busy, *quick]:
            each.result()
    assert Counter(finished) == {"slow": 50, "other": 5}
    # The few were done before the last of the many, or the many were done at once.
    last_of_few = max(place for place, name in enumerate(finished) if name == "other")
    loads = loads_since(stack, before)
    assert loads in (["slow", "other"], ["slow", "other", "slow"])
    if len(loads) == 3:
        assert last_of_few < len(finished) - 1


def test_a_stream_is_never_cut_for_others(stack: Stack, keys: tuple[str, str]) -> None:
    all_stopped(stack)
    client = make_client(stack, keys[0])
    stream = client.chat.completions.create(
        model="slow",
        messages=[{"role": "user", "content": "Count."}],
        max_tokens=STREAM_TOKENS,
        stream=True,
        extra_body={"tps": TOKENS_PER_SECOND},
    )
    chunks = [next(stream)]
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, make_client(stack, keys[1]), "other")

        def queue() -> Any:
            return stack.instance("other")["queue"]

        shown = until(queue, "other in the queue")
        assert shown["place"] == 1
        assert "max_running_instances" in shown["reason"]
        chunks += list(stream)
        assert other.result().model == "other"
    assert len(chunks) == STREAM_TOKENS
    assert stack.instance("other")["queue"] is None


def test_a_client_that_disconnects_while_waiting_causes_no_swap(
    stack: Stack, keys: tuple[str, str]
) -> None:
    all_stopped(stack)
    ask(make_client(stack, keys[0]), "slow")
    client = make_client(stack, keys[0])
    before = len(history(stack))
    with client.chat.completions.create(
        model="slow",
        messages=[{"role": "user", "content": "Count."}],
        max_tokens=STREAM_TOKENS,
        stream=True,
        extra_body={"tps": TOKENS_PER_SECOND},
    ) as stream:
        next(stream)
        with pytest.raises(requests.Timeout):
            requests.post(
                f"{stack.url}/v1/chat/completions",
                json={"model": "other", "messages": []},
                headers={"Authorization": f"Bearer {keys[1]}"},
                timeout=1.5,
            )
        until(
            lambda: stack.instance("other")["desired_state"] == "stopped",
            "the desired state of other is withdrawn",
        )
        for _ in stream:
            pass
    assert stack.instance("other")["requested_by"] == "supervisor:abandoned"
    assert loads_since(stack, before) == []


def test_a_frozen_backend_is_replaced(stack: Stack, keys: tuple[str, str]) -> None:
    all_stopped(stack)
    ask(make_client(stack, keys[0]), "a")
    backend = stack.backends("a")[0]
    for process in [backend, *backend.children(recursive=True)]:
        os.kill(process.pid, signal.SIGSTOP)
    until(lambda: not backend.is_running(), "the frozen backend ended", seconds=60)
    stack.until_status("a", "running")
    assert ask(make_client(stack, keys[0]), "a").model == "a"
    assert stack.instance("a")["restarts"] == 1


def test_pinned_instances_are_not_preempted(stack: Stack, keys: tuple[str, str]) -> None:
    all_stopped(stack)
    stack.create("pinned", {"model": "fake"}, command_override=str(FAKE_BACKEND), pinned=True)
    ask(make_client(stack, keys[0]), "pinned")
    refused = stack.call("POST", "/api/v1/instances/a/start")
    assert refused.status_code == 409
    assert refused.json()["error"] == "max_instances_reached"
    with pytest.raises(openai.InternalServerError) as answer:
        ask(make_client(stack, keys[0]), "a")
    assert answer.value.status_code == 503
    assert answer.value.code == "max_instances_reached"
    assert "pinned" in str(answer.value)
    assert stack.call("POST", "/api/v1/instances/pinned/stop").status_code == 200
