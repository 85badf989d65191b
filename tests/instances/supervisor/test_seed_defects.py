"""Defects of the Go program in the supervision of processes, which llamactl must not have.

``docs/compatibility.md`` has the whole list; the other defects are tested beside their subjects.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from instances import lifecycle
from instances.models import Instance
from instances.states import Status
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import PROGRAM, NodeUnderTest, children, is_alive
from tests.support.until import until


def kill(node: NodeUnderTest) -> None:
    pid = node.see().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: node.see().pid != pid)


def test_a_stop_after_an_automatic_restart_still_waits_and_escalates(
    supervised: NodeUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    # There the watcher of the first process ends that of the second: SIGINT, and no more.
    caplog.set_level("INFO")
    supervised.running(restart_delay=0, FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1")
    kill(supervised)
    pid = supervised.reaches(Status.RUNNING).pid
    assert pid is not None
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    assert not is_alive(pid)
    texts = [record.getMessage() for record in caplog.records]
    assert [text[:7] for text in texts if text.startswith("SIG")] == [
        *("SIGINT", "SIGTERM", "SIGKILL")
    ]


def test_a_restart_whose_program_is_gone_fails_and_says_so(
    supervised: NodeUnderTest, tmp_path: Path
) -> None:
    # There it stays "restarting" for ever.
    program = tmp_path / "server"
    program.write_text(f'#!/bin/sh\nexec "{PROGRAM}" "$@"\n')
    program.chmod(0o755)
    supervised.running(restart_delay=0, command_override=str(program))
    program.unlink()
    kill(supervised)
    instance = supervised.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["reason"] == "executable_not_found"
    assert not children()


def test_an_instance_that_waits_to_restart_can_be_stopped_and_deleted(
    supervised: NodeUnderTest,
) -> None:
    # There stop does nothing to it, and delete is refused.
    supervised.running(restart_delay=30)
    kill(supervised)
    supervised.reaches(Status.RESTARTING)
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    lifecycle.delete("one", cause="test")
    assert not Instance.objects.exists()


def test_a_line_of_any_length_stops_no_backend_and_no_reader(supervised: NodeUnderTest) -> None:
    # There a line of more than 64 KiB closes the pipe under the backend, and the log can't be read.
    supervised.running(FAKE_PRINT="x" * 100_000)
    assert "x" * 100_000 in supervised.log()
    pid = supervised.see().pid
    assert pid is not None
    assert is_alive(pid)


def test_a_start_needs_no_preemption(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    # The later Go program starts nothing on demand where eviction is switched off.
    fake_backend(enable_lru_eviction=False)
    node.start()
    node.running()
