"""A hung backend is treated like a crashed one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from instances.backends.llama_cpp.backend import LlamaCpp
from instances.backends.mlx.backend import Mlx
from instances.scheduling.traffic_report import WebReport
from instances.states import Status
from instances.supervisor.controller import health_check, liveness_probe
from instances.supervisor.scheduling import scheduler, traffic_monitor
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest, is_alive, signals_of
from tests.support.until import until

Configure = Callable[..., AppConfig]
TIMEOUT = 0.6
LONG_TIMEOUT = 3.0
"""For a backend that must be left alone for several probes."""


@pytest.fixture
def reports(node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch) -> list[WebReport]:
    found: list[WebReport] = []
    for module in ("controller.drain", "scheduling.traffic_monitor"):
        monkeypatch.setattr(
            f"instances.supervisor.{module}.read_reports", lambda client: list(found)
        )
    monkeypatch.setattr(scheduler, "SLOW_POLL_SECONDS", 0.05)
    monkeypatch.setattr(health_check, "READ_SECONDS", 0.2)
    return found


@pytest.fixture
def watched(
    node: NodeUnderTest, reports: list[WebReport], fake_backend: Configure
) -> NodeUnderTest:
    fake_backend(unhealthy_timeout=TIMEOUT)
    node.start()
    return node


@pytest.fixture
def watched_long(
    node: NodeUnderTest,
    reports: list[WebReport],
    fake_backend: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> NodeUnderTest:
    """Probed all the time, and ended much later."""
    monkeypatch.setattr(liveness_probe, "PAUSE_SHARE", 0.1)
    fake_backend(unhealthy_timeout=LONG_TIMEOUT)
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
    until(lambda: not is_alive(pid))
    until(lambda: watched.see().restarts == 1)
    watched.reaches(Status.RUNNING)
    change = watched.see().history.get(new=Status.RESTARTING)
    assert change.cause == "supervisor:crash"
    assert "instances.unhealthy_timeout" in change.reason


def test_a_hung_backend_without_auto_restart_fails_with_that_reason(watched: NodeUnderTest) -> None:
    watched.running(auto_restart=False)
    frozen(watched)
    failure = watched.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["reason"] == "hung"
    assert failure["exit_code"] == -9


def test_a_backend_that_answers_again_in_time_is_left_alone(
    watched_long: NodeUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pid = watched_long.running().pid or 0
    end = time.monotonic() + 1.2 * LONG_TIMEOUT
    while time.monotonic() < end:
        caplog.clear()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: "liveness probe not answered" in caplog.text)
        os.kill(pid, signal.SIGCONT)
        until(lambda: "liveness probe answered again" in caplog.messages)
    assert watched_long.see().pid == pid
    assert watched_long.history() == ["starting", "running"]


def test_a_backend_that_sends_bytes_is_left_alone(
    watched_long: NodeUnderTest,
    reports: list[WebReport],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def sends(client: object) -> list[WebReport]:
        return [WebReport("web", 10**9, {"one": 1}, last_used={"one": time.time()})]

    caplog.set_level("INFO")
    watched_long.running(restart_delay=0)
    monkeypatch.setattr(traffic_monitor, "read_reports", sends)
    pid = frozen(watched_long)
    time.sleep(1.2 * LONG_TIMEOUT)
    assert "liveness probe not answered" in caplog.text
    assert signals_of(caplog) == []
    reports[:] = sends(None)
    monkeypatch.setattr(traffic_monitor, "read_reports", lambda client: list(reports))
    until(lambda: not is_alive(pid))


@pytest.mark.parametrize("answers", [True, False])
def test_a_backend_without_health_checks_while_busy_is_judged_only_while_idle(
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
        until(lambda: not is_alive(pid))
        return
    time.sleep(3 * TIMEOUT)
    assert is_alive(pid)
    reports[:] = []
    until(lambda: not is_alive(pid))


def test_mlx_answers_no_health_check_while_busy() -> None:
    assert not Mlx.answers_health_while_busy


def test_without_a_report_no_backend_is_hung(
    watched: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(client: object) -> list[WebReport]:
        raise ConnectionError("no broker")

    watched.running()
    monkeypatch.setattr(traffic_monitor, "read_reports", refuse)
    monkeypatch.setattr(traffic_monitor, "FRESH_SECONDS", 0.1)
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


def test_a_backend_that_hangs_repeatedly_uses_up_its_restarts(watched: NodeUnderTest) -> None:
    watched.running(restart_delay=0, max_restarts=1)
    first = frozen(watched)
    until(lambda: watched.see().restarts == 1 and watched.see().pid)
    assert frozen(watched) != first
    watched.reaches(Status.FAILED)
