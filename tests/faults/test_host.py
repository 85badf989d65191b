"""The power goes: everything is killed at once, backends too."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


def kill_everything(stack: FakeStack) -> None:
    """Kill all processes at once: SIGSTOP first, so that none can react to the end of another."""
    assert stack.process is not None
    victims = stack.processes()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
    stack.process.wait(10)
    psutil.wait_procs(victims, timeout=10)
    stack.until_nothing_left()


def test_what_ran_runs_again_and_what_did_not_does_not(tmp_path: Path, program: Path) -> None:
    with running(tmp_path / "data", program) as stack:
        for name in ("one", "two", "stopped"):
            stack.run_fake(name)
        stack.stop_instance("stopped")
        stack.create_fake("never")
        key, management_key = stack.new_key(), stack.management_key
        with Traffic(stack, key, ["one", "two"], is_managed=False) as traffic:
            traffic.until_streaming()
            kill_everything(stack)
            stack.start()
            for name in ("one", "two"):
                stack.until_status(name, "running", 30)
            traffic.until_served()
        counts = traffic.counts("everything SIGKILL")
        # Requests during the outage were refused; nothing else was lost.
        kinds = {problem.partition(": ")[2].partition(":")[0] for problem in counts.problems}
        assert kinds <= {"no answer", "mixed up, or cut", "cut"}, kinds
        assert counts.doubled == 0
        assert stack.management_key == management_key
        for name in ("one", "two"):
            stack.one_backend(name)
        for name in ("stopped", "never"):
            assert stack.instance(name)["status"] == "stopped"
            assert stack.backends(name) == []
        assert stack.chat("stopped", key).status_code == 200
        until(lambda: stack.crashes("one") == 0, "an end of the host is no crash", seconds=5)
