"""A process that is alive and answers nothing is as good as crashed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from instances.backends.llama_cpp import LlamaCpp
from instances.backends.mlx import Mlx
from instances.states import Status
from instances.supervisor import arbiter
from instances.traffic import WebReport
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest, eventually, is_alive

Configure = Callable[..., AppConfig]
TIMEOUT = 0.6


@pytest.fixture
def reports(node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch) -> list[WebReport]:
    found: list[WebReport] = []
    for module in ("draining", "polling"):
        monkeypatch.setattr(
            f"instances.supervisor.{module}.read_reports", lambda client: list(found)
        )
    monkeypatch.setattr(arbiter, "DOUBT_POLL_SECONDS", 0.05)
    monkeypatch.setattr("instances.supervisor.health.READ_SECONDS", 0.2)
    return found


@pytest.fixture
def watched(
    node: NodeUnderTest, reports: list[WebReport], fake_backend: Configure
) -> NodeUnderTest:
    fake_backend(unhealthy_timeout=TIMEOUT)
    node.start()
    return node


def frozen(node: NodeUnderTest) -> int:
    """The running instance, frozen by SIGSTOP: it takes connections and answers nothing."""
    pid = node.reaches(Status.RUNNING).pid or 0
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_frozen_backend_is_ended_and_started_again(watched: NodeUnderTest) -> None:
    watched.running(restart_delay=0)
    pid = frozen(watched)
    eventually(lambda: not is_alive(pid), seconds=10)
    eventually(lambda: watched.see().restarts == 1)
    watched.reaches(Status.RUNNING)
    change = watched.see().history.get(new=Status.RESTARTING)
    assert change.cause == "supervisor:crash"
    assert "instances.unhealthy_timeout" in change.reason


def test_one_that_may_not_be_restarted_has_failed_because_it_hung(watched: NodeUnderTest) -> None:
    watched.running(auto_restart=False)
    frozen(watched)
    failure = watched.reaches(Status.FAILED, seconds=10).failure
    assert failure is not None
    assert failure["reason"] == "hung"
    assert failure["exit_code"] == -9


def test_one_that_answers_again_in_time_is_left_alone(watched: NodeUnderTest) -> None:
    pid = watched.running().pid or 0
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(TIMEOUT / 3)
        os.kill(pid, signal.SIGCONT)
        time.sleep(TIMEOUT)
    assert watched.see().pid == pid
    assert watched.history() == ["starting", "running"]


def test_one_that_sends_bytes_is_left_alone(
    watched: NodeUnderTest, reports: list[WebReport]
) -> None:
    watched.running(restart_delay=0)
    reports[:] = [WebReport("web", 10**9, {"one": 1}, last_used={"one": time.time()})]
    pid = frozen(watched)
    until = time.monotonic() + 3 * TIMEOUT
    while time.monotonic() < until:
        reports[:] = [WebReport("web", 10**9, {"one": 1}, last_used={"one": time.time()})]
        time.sleep(0.05)
    assert is_alive(pid)
    assert watched.see().pid == pid
    eventually(lambda: not is_alive(pid), seconds=10)


@pytest.mark.parametrize("answers", [True, False])
def test_one_that_answers_no_health_check_while_it_is_busy_is_left_alone_then(
    watched: NodeUnderTest,
    reports: list[WebReport],
    monkeypatch: pytest.MonkeyPatch,
    answers: bool,
) -> None:
    monkeypatch.setattr(LlamaCpp, "answers_health_while_busy", answers)
    watched.running(restart_delay=0)
    reports[:] = [WebReport("web", 10**9, {"one": 1})]
    pid = frozen(watched)
    if answers:
        eventually(lambda: not is_alive(pid), seconds=10)
        return
    time.sleep(3 * TIMEOUT)
    assert is_alive(pid)
    reports[:] = []
    eventually(lambda: not is_alive(pid), seconds=10)


def test_mlx_is_such_a_backend() -> None:
    assert not Mlx.answers_health_while_busy


def test_without_a_report_nobody_is_taken_for_hung(
    watched: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(client: object) -> list[WebReport]:
        raise ConnectionError("no broker")

    watched.running()
    monkeypatch.setattr("instances.supervisor.polling.read_reports", refuse)
    monkeypatch.setattr("instances.supervisor.polling.FRESH_SECONDS", 0.1)
    pid = frozen(watched)
    time.sleep(3 * TIMEOUT)
    assert is_alive(pid)


def test_timeout_0_is_never(
    node: NodeUnderTest, reports: list[WebReport], fake_backend: Configure
) -> None:
    fake_backend(unhealthy_timeout=0)
    node.start()
    node.running()
    pid = frozen(node)
    time.sleep(2 * TIMEOUT)
    assert is_alive(pid)


def test_one_that_hangs_again_and_again_runs_out_of_restarts(watched: NodeUnderTest) -> None:
    watched.running(restart_delay=0, max_restarts=1)
    first = frozen(watched)
    eventually(lambda: watched.see().restarts == 1 and watched.see().pid, seconds=10)
    assert frozen(watched) != first
    watched.reaches(Status.FAILED, seconds=10)
