"""Thousands of times, and nothing is left of it."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.faults import victims
from tests.faults.stack import FakeStack, running
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

INSTANCES = 4
WARM_UP_ROUNDS = 10
ROUNDS = 25
"""With the first, pools and caches fill. (500, without the HTTP: the supervisor's own tests.)"""
REQUESTS = 2000
WARM_UP_REQUESTS = 500
CALLERS = 20
MOST_GROWTH_BYTES = 24 * 2**20
MOST_NEW_DESCRIPTORS = 8
"""Connections to the database and the broker come and go."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    directory = tmp_path_factory.mktemp("llamactl") / "data"
    with running(directory, program, LLAMACTL_DRAIN_TIMEOUT="0") as stack:
        yield stack


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend that costs next to nothing, and is never ready."""
    program = tmp_path_factory.mktemp("sleeper") / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    return program


class Footprint:
    """The resources of a process at one moment."""

    def __init__(self, stack: FakeStack, process: psutil.Process) -> None:
        self.bytes = process.memory_info().rss
        self.descriptors = process.num_fds()
        self.threads = process.num_threads()
        self.zombies = victims.zombies(process)
        self.files = sorted(
            str(path)
            for path in stack.data_dir.rglob("*")
            # SQLite makes and removes these as it likes.
            if not path.name.endswith(("-wal", "-shm", "-journal"))
        )

    def __str__(self) -> str:
        return f"{self.bytes / 2**20:.1f} MiB, {self.descriptors} fds, {self.threads} threads"


def has_grown_little(before: Footprint, take: Callable[[], Footprint], what: str) -> None:
    def is_little() -> bool:
        now = take()
        return (
            now.descriptors - before.descriptors <= MOST_NEW_DESCRIPTORS
            and now.bytes - before.bytes < MOST_GROWTH_BYTES
            and not now.zombies
            and now.files == before.files
        )

    try:
        until(is_little, f"{what}: as little as before", seconds=20)
    finally:
        print(f"\n[{what}] before: {before}; after: {take()}")


def test_a_hundred_starts_and_stops_leave_nothing(stack: FakeStack, sleeper: Path) -> None:
    names = [f"i{number}" for number in range(INSTANCES)]
    for name in names:
        stack.create_fake(name, command_override=str(sleeper))
    worker, web = victims.worker(stack), victims.webs(stack)[0]

    def cycle(name: str) -> None:
        """A start until there is a process, and a stop until there is none."""
        path = f"/api/v1/instances/{name}"
        assert stack.call("POST", f"{path}/start").ok
        until(lambda: seen(name)[0] is not None, f"{name} has a process")
        assert stack.call("POST", f"{path}/stop").ok
        until(lambda: seen(name) == (None, "stopped"), f"{name} has none")

    def seen(name: str) -> tuple:
        return stack.query("SELECT pid, status FROM instances_instance WHERE name = ?", name)[0]

    def cycle_all(rounds: int) -> None:
        """Cycle all instances at once, each by one operator: two would undo each other's state."""

        def cycles(name: str) -> None:
            for _ in range(rounds):
                cycle(name)

        with ThreadPoolExecutor(INSTANCES) as operators:
            list(operators.map(cycles, names))

    cycle_all(WARM_UP_ROUNDS)
    before = {process: Footprint(stack, process) for process in (worker, web)}
    cycle_all(ROUNDS)
    for process, footprint in before.items():
        what = "worker" if process is worker else "web"
        has_grown_little(footprint, lambda p=process: Footprint(stack, p), f"{what}, 100 cycles")  # type: ignore[misc]


def test_thousands_of_disconnects_leave_no_connection_behind(stack: FakeStack) -> None:
    stack.run_fake("talker")
    key, web = stack.new_key(), victims.webs(stack)[0]

    def ask(number: int) -> None:
        """Disconnect at another moment each time: at once, before the answer, in the middle."""
        document = {"model": "talker", "stream": True, "max_tokens": 50, "tps": 50}
        body = json.dumps(document).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as client:
            client.sendall(head + (body if number % 4 else body[:10]))
            if number % 4 >= 2:
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            if number % 4 == 3:
                # A reset instead of an orderly end.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(ask, range(WARM_UP_REQUESTS)))
        until(lambda: in_flight(stack) == 0, "nothing in flight", seconds=20)
        before = Footprint(stack, web)
        list(callers.map(ask, range(REQUESTS)))
    until(lambda: in_flight(stack) == 0, "nothing in flight", seconds=20)
    has_grown_little(before, lambda: Footprint(stack, web), "web, 2000 disconnects")


def in_flight(stack: FakeStack) -> int:
    stats = stack.call("GET", "/api/v1/instances/talker/proxy/fake/stats").json()
    number: int = stats["in_flight"]
    return number
