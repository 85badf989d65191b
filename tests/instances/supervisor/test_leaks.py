from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from instances.states import Status
from instances.supervisor.controller.health_check import READY
from instances.supervisor.process.listeners import OURS
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest, children
from tests.support.until import until

MAX_GROWTH_BYTES = 32 * 2**10
"""Bound for each start. The allocator alone grows by a MiB or so, whatever their number."""


def descriptors() -> list[str]:
    """List the open descriptors, but for the database connections, which Django keeps."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [path for path in found if ".sqlite3" not in path]


def no_more_than(before: list[str]) -> None:
    """Waits until no more is open than before: other threads may just be reading something."""
    gc.collect()
    until(
        lambda: len(descriptors()) <= len(before),
        lambda: f"before: {sorted(before)}, now: {sorted(descriptors())}",
    )


def test_thirty_starts_and_stops_leave_no_descriptor_and_no_process(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(drain_timeout=0)
    # No HTTP: this is about processes, and 30 times 100 ms would be 3 s.
    node.start(check_health=lambda *_: READY)
    for number in range(6):
        node.create(f"i{number}", FAKE_LOG_LINES="1")
    before: list[str] = []
    for cycle in range(6):
        for number in range(6):
            node.ask_start(f"i{number}")
        for number in range(6):
            node.reaches(Status.RUNNING, f"i{number}")
        for number in range(6):
            node.ask_stop(f"i{number}")
        for number in range(6):
            node.reaches(Status.STOPPED, f"i{number}")
        if cycle == 0:  # the first fills pools and caches
            before = descriptors()
    assert not children()
    no_more_than(before)


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_hundreds_of_starts_and_stops_cost_no_memory(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    broker: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # pytest keeps every record, which would be most of the measured memory.
    caplog.set_level(logging.ERROR)
    fake_backend(drain_timeout=0)
    # The program listens on no port.
    node.start(check_health=lambda *_: READY, owner_of=lambda *_: OURS)
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    names = [f"i{number}" for number in range(20)]
    for name in names:
        node.create(name, command_override=str(program))

    def cycle() -> None:
        for name in names:
            node.ask_start(name)
        for name in names:
            node.reaches(Status.RUNNING, name, seconds=20)
        for name in names:
            node.ask_stop(name)
        for name in names:
            node.reaches(Status.STOPPED, name, seconds=20)

    for _ in range(5):  # pools and caches fill
        cycle()
    before, memory = descriptors(), psutil.Process().memory_info().rss
    for _ in range(12):
        cycle()
    assert not children()
    no_more_than(before)
    growth = psutil.Process().memory_info().rss - memory
    print(f"grown by {growth / 2**20:.1f} MiB")
    assert growth < 12 * len(names) * MAX_GROWTH_BYTES


def test_a_supervisor_leaves_no_thread_and_no_descriptor(node: NodeUnderTest) -> None:
    threads = set(threading.enumerate())
    before = descriptors()
    node.start()
    node.running()
    node.stop()
    # The process's sender of messages to the broker is no thread of the supervisor.
    left = {each for each in threading.enumerate() if each.name != "broker-sender"}
    assert left <= threads
    no_more_than(before)


def test_starts_that_fail_leave_nothing_open(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    node.start()
    node.create(environment={"LONG": "x" * 140_000})
    node.ask_start()
    node.reaches(Status.FAILED)
    before = descriptors()
    for _ in range(10):
        node.ask_start()
        node.reaches(Status.FAILED)
    no_more_than(before)
