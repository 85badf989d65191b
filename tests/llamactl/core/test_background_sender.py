"""Messages to the broker leave by a thread, which a broker that hangs holds up instead of us."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from llamactl.core.background_sender import BackgroundSender
from tests.support.paths import ROOT
from tests.support.until import until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Broker:
    """A receiver of messages that may hang."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.hangs = threading.Event()
        self.hangs.set()
        self.is_hanging = threading.Event()

    def receive(self, text: str) -> None:
        self.is_hanging.set()
        assert self.hangs.wait(30)
        self.received.append(text)


def fail() -> None:
    raise ConnectionError("no broker")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sender(clock: Clock) -> BackgroundSender:
    return BackgroundSender("messages", clock=clock)


def test_nobody_waits_for_a_broker_that_hangs_and_equal_messages_become_one(
    sender: BackgroundSender,
) -> None:
    broker = Broker()
    broker.hangs.clear()
    sender.send("a", lambda: broker.receive("a"))
    assert broker.is_hanging.wait(30)
    for _ in range(23):
        sender.send("b", lambda: broker.receive("b"))
        sender.send("c", lambda: broker.receive("c"))
    assert not sender.flush(0.01)
    broker.hangs.set()
    assert sender.flush(30)
    assert broker.received == ["a", "b", "c"]


def test_for_a_second_after_a_failure_nothing_is_sent(
    sender: BackgroundSender, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker()
    sender.send("a", fail)
    assert sender.flush(30)
    clock.now += 0.9
    sender.send("b", lambda: broker.receive("b"))
    assert sender.flush(30)
    assert broker.received == []
    clock.now += 0.1
    sender.send("c", lambda: broker.receive("c"))
    assert sender.flush(30)
    assert broker.received == ["c"]
    until(lambda: len(caplog.messages) == 2, "both lines of the log")
    assert "no broker" in caplog.messages[0]
    assert "works again" in caplog.messages[1]


def test_a_failure_drops_the_messages_that_waited_for_it(sender: BackgroundSender) -> None:
    broker = Broker()
    broker.hangs.clear()

    def hang_and_fail() -> None:
        broker.receive("a")
        fail()

    sender.send("a", hang_and_fail)
    assert broker.is_hanging.wait(30)
    sender.send("b", lambda: broker.receive("b"))
    broker.hangs.set()
    assert sender.flush(30)
    assert broker.received == ["a"]


def test_a_command_that_ends_at_once_sends_its_last_message() -> None:
    program = (
        "import time; from llamactl.core.background_sender import BackgroundSender;"
        "BackgroundSender('x').send('a', lambda: (time.sleep(0.2), print('sent', flush=True)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("sent\n", 0)
