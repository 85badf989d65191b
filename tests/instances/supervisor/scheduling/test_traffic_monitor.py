"""Age of the traffic reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from instances.scheduling.traffic_report import WebReport
from instances.supervisor.scheduling import traffic_monitor
from instances.supervisor.scheduling.traffic_monitor import FRESH_SECONDS, TrafficMonitor

INTERVAL = 0.15


class FakeLoop:
    """A clock that is set, and another thread that answers when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.monitor = TrafficMonitor(self._off_thread, lambda: self.now)
        self._answers: list[Callable[[], None]] = []

    def _off_thread(self, work: Callable[[], Any], then: Callable[[Any], None], **_: Any) -> None:
        self._answers.append(lambda: then(work()))

    def ask(self) -> None:
        """The end of a turn of the supervisor's loop."""
        self.monitor.step(self.now, INTERVAL)

    def answer(self, *, after_seconds: float) -> None:
        self.now += after_seconds
        self._answers.pop()()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    monkeypatch.setattr(traffic_monitor, "read_reports", lambda client: [WebReport("web", 1)])
    return FakeLoop()


def test_before_the_first_answer_the_traffic_is_unknown(loop: FakeLoop) -> None:
    loop.ask()
    assert loop.monitor.fresh() is None
    assert loop.monitor.latest() is None


def test_a_quick_answer_is_fresh_for_some_turns(loop: FakeLoop) -> None:
    loop.ask()
    loop.answer(after_seconds=0.1)
    loop.ask()
    assert loop.monitor.fresh() is loop.monitor.latest() is not None
    loop.now += FRESH_SECONDS
    assert loop.monitor.fresh() is loop.monitor.latest() is None


def test_a_late_answer_counts_in_the_turn_in_which_it_comes(
    loop: FakeLoop,
) -> None:
    loop.ask()
    loop.answer(after_seconds=2 * FRESH_SECONDS)
    assert loop.monitor.latest() is not None
    # A decision that can't be undone waits for fresh reports.
    assert loop.monitor.fresh() is None
    loop.ask()
    assert loop.monitor.latest() is None


def test_a_long_turn_keeps_its_latest_answer(loop: FakeLoop) -> None:
    loop.ask()
    loop.answer(after_seconds=0.1)
    loop.now += 2 * FRESH_SECONDS
    assert loop.monitor.latest() is not None


def test_without_a_broker_the_last_answer_does_not_count(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(client: object) -> list[WebReport]:
        raise redis.ConnectionError

    loop.ask()
    loop.answer(after_seconds=0.1)
    loop.now += INTERVAL
    loop.ask()
    monkeypatch.setattr(traffic_monitor, "read_reports", refuse)
    loop.answer(after_seconds=0.1)
    assert loop.monitor.fresh() is loop.monitor.latest() is None
