"""The worker ends: its backends run on, or end with it and come back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from instances.states import DesiredState, Status
from instances.supervisor import running_supervisor
from instances.supervisor.controller import drain
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest, children, is_alive, signals_of
from tests.support.until import until


def test_backends_that_are_kept_run_on(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    pid = node.running().pid
    node.stop()
    assert is_alive(pid or 0)
    assert node.see().status == Status.RUNNING
    fake_backend()
    node.start()
    node.ask_stop()
    node.reaches(Status.STOPPED)


def test_backends_that_are_not_kept_end_and_come_back(node: NodeUnderTest) -> None:
    node.start()
    node.running("one")
    node.running("two")
    node.stop()
    assert not children()
    for name in ("one", "two"):
        assert node.see(name).status == Status.STOPPED
        assert node.see(name).desired_state == DesiredState.RUNNING
        assert node.history(name)[-2:] == ["shutting_down", "stopped"]
    node.start()
    node.reaches(Status.RUNNING, "one")
    node.reaches(Status.RUNNING, "two")


def test_backends_end_in_parallel(node: NodeUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    node.start()
    for name in ("one", "two", "three"):
        node.running(name, FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1")
    node.stop()
    # All should have been asked before any of them is waited for.
    assert signals_of(caplog)[:3] == ["SIGINT"] * 3
    assert not children()


def test_a_starting_backend_ends_and_comes_back(node: NodeUnderTest) -> None:
    node.start()
    node.create(FAKE_START_SECONDS="0.3")
    node.ask_start()
    until(lambda: node.see().pid)
    node.stop()
    assert not children()
    assert node.see().status == Status.STOPPED
    node.start()
    node.reaches(Status.RUNNING)


def test_a_backend_that_waits_to_restart_comes_back(node: NodeUnderTest) -> None:
    node.start()
    pid = node.running(restart_delay=600).pid
    os.kill(pid or 0, signal.SIGKILL)
    node.reaches(Status.RESTARTING)
    node.stop()
    assert node.see().status == Status.STOPPED
    node.start()
    node.reaches(Status.RUNNING)


@pytest.mark.parametrize("end", [Status.FAILED, Status.STOPPED])
def test_a_final_status_survives_a_shutdown(node: NodeUnderTest, end: Status) -> None:
    node.start()
    if end == Status.FAILED:
        node.create(FAKE_EXIT_CODE="1")
        node.ask_start()
    else:
        os.kill(node.running().pid or 0, signal.SIGTERM)  # its handler exits with code 0
    node.reaches(end)
    history = node.history()
    node.stop()
    node.start()
    node.running("other")
    assert node.history() == history


def test_a_stop_under_way_is_finished_though_backends_are_kept(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    node.running(FAKE_IGNORE_SIGINT="1")
    node.ask_stop()
    until(lambda: node.see().status == Status.SHUTTING_DOWN)
    node.stop()
    assert node.see().status == Status.STOPPED
    assert not children()


def test_a_quick_stop_does_not_wait_for_requests(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "has_connections", lambda port: True)
    fake_backend(drain_timeout=60, stop_timeout=60)
    node.start()
    node.running()
    node.ask_stop()
    until(lambda: node.see().status == Status.SHUTTING_DOWN)
    began = time.monotonic()
    node.stop(quickly=True)
    assert time.monotonic() - began < 10
    assert not children()


def test_the_running_supervisor_is_known_while_it_runs(node: NodeUnderTest) -> None:
    assert running_supervisor() is None
    supervisor = node.start()
    assert running_supervisor() is supervisor
    node.stop()
    assert running_supervisor() is None


def test_waking_a_supervisor_that_has_ended_does_nothing(node: NodeUnderTest) -> None:
    supervisor = node.start()
    node.stop()
    supervisor.wake()


def test_a_supervisor_that_was_just_started_can_be_stopped(node: NodeUnderTest) -> None:
    node.start()
    node.stop()
