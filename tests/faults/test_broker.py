"""Faults of the broker: killed, with or without its data, or frozen."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis
import requests

from tests.faults import victims
from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

FROZEN_SECONDS = 7
"""Longer than every timeout of its clients."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    directory = tmp_path_factory.mktemp("llamactl") / "data"
    with running(directory, program) as stack:
        stack.run_fake("one")
        stack.run_fake("two")
        stack.create_fake("cold")
        yield stack


@pytest.fixture(scope="module")
def key(stack: FakeStack) -> str:
    return stack.new_key()


def client(stack: FakeStack) -> redis.Redis:
    password = (stack.data_dir / "broker" / "password").read_text().strip()
    config = (stack.data_dir / "broker" / "valkey.conf").read_text()
    line = next(line for line in config.splitlines() if line.startswith("unixsocket "))
    return redis.Redis(unix_socket_path=line.split('"')[1], password=password)


def until_events_flow(stack: FakeStack) -> None:
    """The web process listens for changes, and the worker takes its wake-ups, again."""
    with client(stack) as broker:

        def is_heard() -> bool:
            listeners = cast(list[Any], broker.pubsub_numsub("llamactl:changes"))[0][1]
            return bool(listeners >= 1 and broker.llen("node.main") == 0)

        until(is_heard, "events")
        stack.call("POST", "/api/v1/instances/cold/stop")
        until(is_heard, "a wake-up that is taken")


@pytest.mark.parametrize("is_data_lost", [False, True], ids=["with its data", "without its data"])
def test_a_broker_that_dies_is_not_missed(
    stack: FakeStack, key: str, *, is_data_lost: bool
) -> None:
    if stack.backends("cold"):
        stack.stop_instance("cold")
    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()
        with victims.coming_back(stack, "broker"):
            victims.broker(stack).kill()
            if is_data_lost:
                shutil.rmtree(stack.data_dir / "broker" / "appendonlydir")
            # It should start at once even if the worker cannot be woken.
            assert stack.chat("cold", key).status_code == 200
        traffic.until_served()
    what = "without" if is_data_lost else "with"
    assert traffic.counts(f"broker SIGKILL {what} its data").is_flawless
    stack.one_backend("cold")
    until_events_flow(stack)
    stack.until_status("cold", "stopped")


def test_a_stop_while_the_broker_is_away_lets_answers_finish(stack: FakeStack, key: str) -> None:
    stack.start_instance("two")
    with Traffic(stack, key, ["one"]) as traffic:
        asked: list[requests.Response] = []
        document = {"stream": True, "max_tokens": 100, "tps": 20}
        asks = threading.Thread(target=lambda: asked.append(stack.chat("two", key, **document)))
        asks.start()
        until(lambda: in_flight(stack, "two") == 1, "a request to two", seconds=20)
        with victims.coming_back(stack, "broker"):
            victims.broker(stack).kill()
            stack.call("POST", "/api/v1/instances/two/stop")
            asks.join(60)
        traffic.until_served()
    assert traffic.counts("stop while the broker is away").is_flawless
    assert asked[0].status_code == 200
    assert asked[0].content.count(b" token") == 100
    assert asked[0].content.endswith(b"data: [DONE]\n\n")
    stack.until_status("two", "stopped")
    stack.start_instance("two")


def in_flight(stack: FakeStack, name: str) -> int:
    stats = stack.call("GET", f"/api/v1/instances/{name}/proxy/fake/stats").json()
    number: int = stats["in_flight"]
    return number


def test_a_broker_that_hangs_holds_nothing_up(stack: FakeStack, key: str) -> None:
    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()
        with victims.frozen([victims.broker(stack)]):
            answer = stack.chat("cold", key)
            traffic.is_over.wait(FROZEN_SECONDS)
        traffic.until_served()
    assert traffic.counts("broker SIGSTOP").is_flawless
    assert answer.status_code == 200
    until_events_flow(stack)
    stack.until_status("cold", "stopped")


def test_a_broker_that_refuses_writes_is_as_good_as_away(stack: FakeStack, key: str) -> None:
    """As one with a full disk does (MISCONF), a full memory (OOM), or too few replicas."""
    worker, backend = victims.worker(stack).pid, stack.one_backend("one").pid
    if stack.backends("cold"):
        stack.stop_instance("cold")
    with client(stack) as broker:
        broker.config_set("min-replicas-to-write", 1)
        try:
            # The worker's consumer gets its first refusal within a second, and reconnects.
            until(lambda: "NOREPLICAS" in stack.output.read_text(errors="replace"), "a refusal")
            with Traffic(stack, key, ["one"]) as traffic:
                assert stack.chat("cold", key).status_code == 200
                stack.stop_instance("cold")
                traffic.until_served()
        finally:
            broker.config_set("min-replicas-to-write", 0)
    assert traffic.counts("a broker that refuses writes").is_flawless
    assert victims.worker(stack).pid == worker
    assert stack.one_backend("one").pid == backend
    until_events_flow(stack)
    # It should not fill the log.
    assert stack.output.read_text(errors="replace").count("NOREPLICAS") < 12
