"""Crashes and restarts of a ready backend."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from instances.states import Status
from instances.supervisor.controller import spawn
from tests.instances.supervisor.conftest import NodeUnderTest, children
from tests.support.until import until


def kill(node: NodeUnderTest, number: signal.Signals = signal.SIGKILL) -> int:
    pid = node.see().pid
    assert pid is not None
    os.kill(pid, number)
    until(lambda: node.see().pid != pid)
    return pid


def test_a_crash_is_restarted(supervised: NodeUnderTest) -> None:
    supervised.running(restart_delay=0)
    killed = kill(supervised)
    instance = supervised.reaches(Status.RUNNING)
    assert instance.pid != killed
    assert instance.restarts == 1
    assert instance.failure is None
    assert supervised.history() == ["starting", "running", "restarting", "starting", "running"]


@pytest.mark.parametrize(
    "line",
    [
        "error: unrecognized arguments: --made-up-by-a-client",
        "No safetensors found in a word of a prompt",
        "bash: a word of a prompt: command not found",
        "Address already in use",
    ],
)
def test_a_line_about_a_start_is_not_the_reason_of_a_later_crash(
    supervised: NodeUnderTest, line: str
) -> None:
    """A backend may log the text of requests, which must not prevent its restart."""
    supervised.running(restart_delay=0, FAKE_PRINT=line)
    kill(supervised)
    assert supervised.reaches(Status.RUNNING).restarts == 1
    change = supervised.see().history.get(new=Status.RESTARTING)
    assert change.reason.startswith("Killed by SIGKILL (possibly")


def test_a_restart_waits_and_its_reason_is_shown(supervised: NodeUnderTest) -> None:
    supervised.running(restart_delay=30)
    kill(supervised)
    instance = supervised.reaches(Status.RESTARTING)
    assert instance.failure is not None
    assert "SIGKILL" in instance.failure["details"]
    change = instance.history.first()
    assert change is not None
    assert change.cause == "supervisor:crash"
    assert change.reason.endswith("restart in 30 s")
    assert not children()


def test_an_instance_fails_when_its_restarts_are_used_up(supervised: NodeUnderTest) -> None:
    supervised.running(restart_delay=0, max_restarts=1)
    kill(supervised)
    supervised.reaches(Status.RUNNING)
    kill(supervised)
    instance = supervised.reaches(Status.FAILED)
    assert instance.restarts == 1
    assert supervised.history() == [
        *("starting", "running", "restarting", "starting", "running", "failed")
    ]


def test_without_auto_restart_a_crash_is_final(supervised: NodeUnderTest) -> None:
    supervised.running(auto_restart=False)
    kill(supervised)
    assert supervised.reaches(Status.FAILED).restarts == 0


def test_a_restart_that_fails_is_tried_again(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised.running(restart_delay=0, max_restarts=2)
    # The same command, but from now on it ends before it is ready.
    monkeypatch.setenv("LLAMA_TEST", "")
    monkeypatch.setattr(
        spawn,
        "backend_environment",
        lambda added: {"FAKE_EXIT_CODE": "4", **added},
    )
    kill(supervised)
    instance = supervised.reaches(Status.FAILED)
    assert instance.restarts == 2
    assert instance.failure is not None
    assert instance.failure["exit_code"] == 4


def test_a_clean_exit_is_stopped_and_stays_so(supervised: NodeUnderTest) -> None:
    supervised.running(restart_delay=0)
    kill(supervised, signal.SIGTERM)  # its handler exits with code 0
    instance = supervised.reaches(Status.STOPPED)
    assert instance.desired_state == "running"
    for _ in range(3):
        supervised.wake()
    time.sleep(0.1)
    assert supervised.history() == ["starting", "running", "stopped"]
    # A new request starts it again.
    supervised.ask_restart()
    supervised.reaches(Status.RUNNING)


def test_a_requested_restart_resets_the_count_of_restarts(supervised: NodeUnderTest) -> None:
    supervised.running(restart_delay=0)
    kill(supervised)
    assert supervised.reaches(Status.RUNNING).restarts == 1
    supervised.ask_restart()
    assert supervised.reaches(Status.RUNNING).restarts == 0


def test_a_requested_restart_does_not_wait_for_the_delay(
    supervised: NodeUnderTest,
) -> None:
    supervised.running(restart_delay=600)
    kill(supervised)
    supervised.reaches(Status.RESTARTING)
    supervised.ask_restart()
    supervised.reaches(Status.RUNNING)


def test_staying_up_resets_the_count_of_restarts(node: NodeUnderTest) -> None:
    ahead = 0.0
    node.start(clock=lambda: time.monotonic() + ahead)
    node.running(restart_delay=0)
    kill(node)
    assert node.reaches(Status.RUNNING).restarts == 1
    ahead = 30.0
    node.wake()
    time.sleep(0.05)
    assert node.see().restarts == 1
    ahead = 61.0
    node.wake()
    until(lambda: node.see().restarts == 0)
    assert node.see().status == Status.RUNNING


def test_key_that_a_backend_prints_is_not_in_the_failure(
    supervised: NodeUnderTest, tmp_path: Path
) -> None:
    program = tmp_path / "prints-its-environment"
    program.write_text("#!/bin/sh\nenv\nexit 3\n")
    program.chmod(0o755)
    instance = supervised.create(command_override=str(program))
    supervised.ask_start()
    failure = supervised.reaches(Status.FAILED).failure
    assert failure is not None
    assert "LLAMA_API_KEY=***" in failure["log_tail"]
    assert f"key-{instance.pk}" not in str(failure)
