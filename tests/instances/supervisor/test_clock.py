"""Deadlines and delays while the host's clock jumps."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from instances.states import Status
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest, is_alive
from tests.support.until import until

JUMPS = (timedelta(0), timedelta(hours=1), timedelta(hours=-1))


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the wall clock finds it set to another hour."""
    jumps = itertools.cycle(JUMPS)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps).total_seconds())
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.now(UTC) + next(jumps))


def test_a_slow_start_is_not_ended(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], jumping_clock: None
) -> None:
    fake_backend(start_timeout=30)
    node.start()
    node.running(FAKE_START_SECONDS="0.3")


def test_a_hung_start_fails_in_time(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], jumping_clock: None
) -> None:
    fake_backend(start_timeout=0.5)
    node.start()
    node.create(FAKE_NEVER_HEALTHY="1")
    node.ask_start()
    node.reaches(Status.FAILED)


def test_a_restart_waits_its_delay_and_no_longer(node: NodeUnderTest, jumping_clock: None) -> None:
    node.start()
    pid = node.running(restart_delay=1).pid or 0
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: node.see().pid not in (None, pid), seconds=10)
    assert time.monotonic() - killed >= 1
    node.reaches(Status.RUNNING)


def test_a_long_delay_is_not_cut_short(node: NodeUnderTest, jumping_clock: None) -> None:
    node.start()
    pid = node.running(restart_delay=600).pid or 0
    os.kill(pid, signal.SIGKILL)
    instance = node.reaches(Status.RESTARTING)
    # It should still wait after it has looked at the rows again.
    beat = instance.node.heartbeat_at
    node.wake()
    until(lambda: node.see().node.heartbeat_at != beat, seconds=10)
    assert node.see().status == Status.RESTARTING


def test_a_worker_with_another_clock_adopts_its_backends(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], jumping_clock: None
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    pid = node.running().pid or 0
    node.stop()
    node.start()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    until(lambda: not is_alive(pid))
