"""Faults of the database: locked by another process, or away, for longer than any timeout."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

SHORT_SECONDS = 6
LONG_SECONDS = 23
"""Longer than the 20 s for which SQLite waits."""
AWAY_SECONDS = 5
BACK_SECONDS = 60
"""The lock is held for as long: a process that waited for it would not be back by then."""

WARM = ("one", "two", "crashing")
COLD = ("red", "green", "blue")
NAMES = (*WARM, *COLD)

HOLD = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
database.execute("COMMIT")
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    directory = tmp_path_factory.mktemp("llamactl") / "data"
    # In a directory of its own, so that all of its files go away in one step.
    with running(directory, program, LLAMACTL_DATABASE_PATH="database/llamactl.db") as stack:
        for name in WARM:
            stack.run_fake(name)
        for name in COLD:
            stack.create_fake(name)
        yield stack


@pytest.fixture(scope="module")
def key(stack: FakeStack) -> str:
    return stack.new_key()


@contextmanager
def locked(stack: FakeStack) -> Iterator[None]:
    """Hold the database's write lock while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(stack.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.communicate(b"")
    assert holder.returncode == 0


def expect_served_or_told_to_retry(answers: list[requests.Response]) -> None:
    print([answer.status_code for answer in answers])
    assert len(answers) == len(COLD)
    for answer in answers:
        is_retry = answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert answer.status_code == 200 or is_retry, answer.text


@pytest.mark.parametrize("seconds", [SHORT_SECONDS, LONG_SECONDS])
def test_a_locked_database_delays_starts_and_status_changes_and_nothing_else(
    stack: FakeStack, key: str, seconds: int
) -> None:
    for name in COLD:
        if stack.backends(name):
            stack.stop_instance(name)
    crashes = stack.crashes("crashing")
    crashing = stack.one_backend("crashing")
    answers: list[requests.Response] = []
    asks = [
        threading.Thread(target=lambda name=name: answers.append(stack.chat(name, key)))
        for name in COLD
    ]
    with Traffic(stack, key, ["one", "two"], is_managed=False) as traffic:
        traffic.until_streaming()
        with locked(stack):
            for each in asks:
                each.start()
            crashing.kill()
            until(
                lambda: [p.pid for p in stack.backends("crashing")] not in ([], [crashing.pid]),
                "the crashed one restarted",
                seconds=BACK_SECONDS,
            )
            # Requests that only read go on.
            assert stack.call("GET", "/api/v1/instances").ok
            traffic.is_over.wait(seconds)
        for each in asks:
            each.join(60)
        for name in COLD:
            assert stack.chat(name, key).status_code == 200
        traffic.until_served()
    counts = traffic.counts(f"database locked for {seconds} s")
    assert counts.is_flawless
    expect_served_or_told_to_retry(answers)
    until(lambda: stack.crashes("crashing") == crashes + 1, "the crash recorded")
    stack.until_status("crashing", "running")
    assert stack.chat("crashing", key).status_code == 200
    for name in NAMES:
        stack.one_backend(name)


def test_a_database_that_is_away_for_a_while_stops_no_answer(stack: FakeStack, key: str) -> None:
    if stack.backends("red"):
        stack.stop_instance("red")
    with Traffic(stack, key, ["one", "two"], is_managed=False) as traffic:
        traffic.until_streaming()
        with away(stack):
            assert stack.call("GET", "/api/v1/instances").status_code == 503
            answer = stack.chat("red", key)
            assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
            traffic.is_over.wait(AWAY_SECONDS)
        assert stack.chat("red", key).status_code == 200
        traffic.until_served()
    assert traffic.counts("database away").is_flawless
    assert stack.query("PRAGMA integrity_check") == [("ok",)]
    assert len(stack.call("GET", "/api/v1/instances").json()) == len(NAMES)


@contextmanager
def away(stack: FakeStack) -> Iterator[None]:
    """As on a volume that is unmounted for a moment."""
    directory = stack.database.parent
    elsewhere = directory.with_name("away")
    directory.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(directory)
