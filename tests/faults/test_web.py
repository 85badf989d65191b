"""Web processes are killed or frozen while they carry requests; and asked for very much at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.faults import victims
from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

CREATES = 200
CALLERS = 50
TOKENS = 220
SOME_REQUESTS = 3
FROZEN_SECONDS = 7
"""Longer than a web process's traffic report is believed."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    directory = tmp_path_factory.mktemp("llamactl") / "data"
    with running(directory, program, LLAMACTL_WEB_PROCESSES="2") as stack:
        stack.run_fake("one")
        stack.run_fake("two")
        yield stack


@pytest.fixture(scope="module")
def key(stack: FakeStack) -> str:
    return stack.new_key()


def kill(stack: FakeStack, processes: list[psutil.Process]) -> set[int]:
    """End them; returns the ports of the clients that each was just serving."""
    with victims.frozen(processes):
        # Frozen processes accept no connection, so these are all.
        ports = set[int]().union(*(victims.client_ports(stack, each) for each in processes))
        for process in processes:
            process.kill()
    return ports


def test_one_web_process_takes_its_own_requests_with_it_and_no_others(
    stack: FakeStack, key: str
) -> None:
    with Traffic(stack, key, ["one", "two"], streams=4, is_managed=False) as traffic:
        traffic.until_streaming()
        victim = victims.webs(stack)[0]
        # The victim should have requests to lose; a single one may be over a moment later.
        until(
            lambda: len(victims.client_ports(stack, victim)) >= SOME_REQUESTS,
            "requests in the first web process",
        )
        with victims.coming_back(stack, "web 1"):
            lost = kill(stack, [victim])
            traffic.until_served()
        traffic.until_served()
    counts = traffic.counts("one of two webs SIGKILL")
    failed = {answer.port for answer in traffic.answers_with_problems()}
    assert failed <= lost
    assert 0 < counts.failed <= len(lost)
    assert counts.doubled == 0
    assert len(victims.webs(stack)) == 2


def test_with_all_web_processes_killed_new_clients_wait_for_the_next(
    stack: FakeStack, key: str
) -> None:
    with Traffic(stack, key, ["one", "two"], is_managed=False) as traffic:
        traffic.until_streaming()
        with victims.coming_back(stack, "web 1"), victims.coming_back(stack, "web 2"):
            lost = kill(stack, victims.webs(stack))
        traffic.until_served()
    counts = traffic.counts("both webs SIGKILL")
    assert {answer.port for answer in traffic.answers_with_problems()} <= lost
    assert counts.doubled == 0
    # A lost request is not in flight for ever: a stop does not wait for it.
    stack.stop_instance("two")
    stack.start_instance("two")


def test_frozen_web_processes_lose_nothing(stack: FakeStack, key: str) -> None:
    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()
        with victims.frozen(victims.webs(stack)):
            traffic.is_over.wait(FROZEN_SECONDS)
        traffic.until_served()
    assert traffic.counts("both webs SIGSTOP").is_flawless


def test_a_frozen_web_process_still_counts_when_its_instance_is_stopped(
    stack: FakeStack, key: str
) -> None:
    with requests.post(
        f"{stack.url}/v1/chat/completions",
        json={"model": "two", "stream": True, "max_tokens": TOKENS, "tps": 20},
        headers={"Authorization": f"Bearer {key}"},
        stream=True,
        timeout=60,
    ) as response:
        connection: Any = response.raw.connection
        port = connection.sock.getsockname()[1]
        carrier = next(
            web for web in victims.webs(stack) if port in victims.client_ports(stack, web)
        )
        with victims.frozen([carrier]):
            # It should not be forgotten when its last report of its traffic has expired.
            until(lambda: stop_of_two(stack), "the stop asked for")
            time.sleep(FROZEN_SECONDS)
        assert response.content.count(b" token") == TOKENS
    stack.until_status("two", "stopped")
    stack.start_instance("two")


def stop_of_two(stack: FakeStack) -> bool:
    """Ask on new connections until a web process answers that is not frozen."""
    with suppress(requests.Timeout):
        return requests.post(
            f"{stack.url}/api/v1/instances/two/stop",
            headers={"Authorization": f"Bearer {stack.management_key}"},
            timeout=1,
        ).ok
    return False


def test_many_creates_at_once_all_succeed_and_share_no_port(stack: FakeStack, key: str) -> None:
    names = [f"many-{number}" for number in range(CREATES)]
    begin = threading.Barrier(CALLERS)

    def create(name: str) -> int:
        if names.index(name) < CALLERS:
            begin.wait(30)
        document = {"backend_type": "llama_cpp", "backend_options": {"model": "fake"}}
        return stack.call("POST", f"/api/v1/instances/{name}", document).status_code

    with Traffic(stack, key, ["one"], is_managed=False) as traffic:
        with ThreadPoolExecutor(CALLERS) as callers:
            statuses = list(callers.map(create, names))
        traffic.until_served()
    assert traffic.counts(f"{CREATES} creates at once").is_flawless
    assert statuses == [201] * CREATES
    ports = [port for (port,) in stack.query("SELECT port FROM instances_instance")]
    assert len(set(ports)) == len(ports) == CREATES + 2
    with ThreadPoolExecutor(8) as callers:
        deleted = list(
            callers.map(
                lambda name: stack.call("DELETE", f"/api/v1/instances/{name}").status_code, names
            )
        )
    assert deleted == [204] * CREATES
