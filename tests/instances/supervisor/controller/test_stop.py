"""Stops and restarts from every phase of an instance."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
import redis
import requests

from instances import lifecycle
from instances.models import Instance
from instances.scheduling.traffic_report import WebReport
from instances.states import DesiredState, Status
from instances.supervisor.controller import drain
from instances.supervisor.controller.phases import starting
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig
from llamactl.models import Revision
from tests.instances.supervisor.conftest import NodeUnderTest, children, is_alive, signals_of
from tests.support.until import until


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[WebReport]:
    """The reports of the web processes, to be filled in by the test."""
    said: list[WebReport] = []
    monkeypatch.setattr(drain, "read_reports", lambda client: list(said))
    return said


@pytest.fixture
def patient(node: NodeUnderTest, fake_backend: Callable[..., AppConfig]) -> NodeUnderTest:
    """A node with a drain timeout that is longer than a test."""
    fake_backend(drain_timeout=600)
    node.start()
    return node


def test_a_stop_announces_itself_and_ends_the_process(supervised: NodeUnderTest) -> None:
    pid = supervised.running().pid
    supervised.ask_stop()
    instance = supervised.reaches(Status.STOPPED)
    assert supervised.history() == ["starting", "running", "shutting_down", "stopped"]
    assert instance.pid is None
    assert pid not in children()


@pytest.mark.parametrize(
    ("ignored", "stop_timeout", "signals"),
    [
        # Long enough for a handled signal on a machine that stalls.
        ((), 60, ["SIGINT"]),
        (("SIGINT",), 3, ["SIGINT", "SIGTERM"]),
        (("SIGINT", "SIGTERM"), 0.3, ["SIGINT", "SIGTERM", "SIGKILL"]),
    ],
)
def test_each_signal_follows_when_the_one_before_is_ignored(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    caplog: pytest.LogCaptureFixture,
    ignored: tuple[str, ...],
    stop_timeout: float,
    signals: list[str],
) -> None:
    caplog.set_level("INFO")
    fake_backend(stop_timeout=stop_timeout)
    node.start()
    node.running(**{f"FAKE_IGNORE_{name}": "1" for name in ignored})
    node.ask_stop()
    node.reaches(Status.STOPPED)
    assert signals_of(caplog) == signals


@pytest.mark.parametrize("kind", ["group", "session"])
def test_the_children_of_a_backend_end_with_it(supervised: NodeUnderTest, kind: str) -> None:
    pid = supervised.running(FAKE_CHILD=kind).pid
    child = int(_children_of(pid or 0)[0])
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    until(lambda: not is_alive(child))


@pytest.mark.parametrize("kind", ["group", "session"])
def test_the_children_of_a_backend_that_crashes_end_with_it(
    supervised: NodeUnderTest, kind: str
) -> None:
    pid = supervised.running(FAKE_CHILD=kind, auto_restart=False).pid
    child = int(_children_of(pid or 0)[0])
    os.kill(pid or 0, 9)
    supervised.reaches(Status.FAILED)
    until(lambda: not is_alive(child))


def _children_of(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def test_stop_while_starting_aborts_the_start(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_NEVER_HEALTHY="1")
    supervised.ask_start()
    pid = until(lambda: supervised.see().pid)
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    assert not is_alive(pid)
    assert supervised.history() == ["starting", "shutting_down", "stopped"]


def test_stop_before_the_process_is_there_cancels_the_start(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It waits for a port that it never gets.
    monkeypatch.setattr(starting, "is_bindable", lambda *_: False)
    monkeypatch.setattr(StateStore, "move_port", lambda *_: None)
    supervised.create()
    supervised.ask_start()
    supervised.reaches(Status.STARTING)
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    assert not children()
    assert supervised.history() == ["starting", "stopped"]


def test_stop_while_waiting_to_restart_cancels_the_restart(supervised: NodeUnderTest) -> None:
    pid = supervised.running(restart_delay=600).pid
    os.kill(pid or 0, 9)
    supervised.reaches(Status.RESTARTING)
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)


def test_start_while_stopping_starts_again_after_the_stop(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(stop_timeout=60)
    node.start()
    pid = node.running(FAKE_IGNORE_SIGINT="1").pid
    node.ask_stop()
    until(lambda: node.see().status == Status.SHUTTING_DOWN)
    node.ask_start()
    os.kill(pid or 0, 15)
    instance = node.reaches(Status.RUNNING)
    assert instance.pid != pid
    assert not is_alive(pid or 0)


def test_a_restart_is_a_new_process_on_the_same_port(supervised: NodeUnderTest) -> None:
    before = supervised.running()
    supervised.ask_restart()
    after = supervised.reaches(Status.RUNNING)
    assert after.pid != before.pid
    assert after.port == before.port
    assert supervised.history() == [
        *("starting", "running", "shutting_down", "stopped", "starting", "running")
    ]


def test_a_restart_while_starting_starts_anew(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_NEVER_HEALTHY="1")
    supervised.ask_start()
    pid = until(lambda: supervised.see().pid)
    document = supervised.see().options | {"environment": {}}
    lifecycle.update("one", document, cause="test")
    assert supervised.reaches(Status.RUNNING).pid != pid


def test_stop_and_start_at_once_is_a_new_process(supervised: NodeUnderTest) -> None:
    pid = supervised.running().pid
    supervised.ask_stop()
    supervised.ask_start()
    assert supervised.reaches(Status.RUNNING).pid != pid


def test_a_deleted_rows_process_is_ended(supervised: NodeUnderTest) -> None:
    pid = supervised.running().pid
    Instance.objects.all().delete()
    supervised.wake()
    until(lambda: pid not in children())


def test_one_stop_does_not_hold_up_the_others(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(stop_timeout=60)
    node.start()
    pid = node.running("slow", FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1").pid
    node.running("quick")
    node.ask_stop("slow")
    node.ask_stop("quick")
    node.reaches(Status.STOPPED, "quick")
    node.running("new")
    assert node.see("slow").status == Status.SHUTTING_DOWN
    os.kill(pid or 0, 9)
    node.reaches(Status.STOPPED, "slow")


def test_requests_in_flight_are_waited_for(
    patient: NodeUnderTest, reports: list[WebReport], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    patient.running()
    reports.append(WebReport("web", revision=10**9, in_flight={"one": 1}))
    patient.ask_stop()
    patient.reaches(Status.SHUTTING_DOWN)
    time.sleep(0.25)
    assert signals_of(caplog) == []
    reports[:] = [WebReport("web", revision=10**9, in_flight={"two": 1})]
    patient.reaches(Status.STOPPED)


def test_a_web_process_that_has_not_seen_the_shutdown_is_waited_for(
    patient: NodeUnderTest, reports: list[WebReport], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    patient.running()
    reports.append(WebReport("web", revision=Revision.numbers()["instances"]))
    patient.ask_stop()
    patient.reaches(Status.SHUTTING_DOWN)
    time.sleep(0.25)
    assert signals_of(caplog) == []
    reports[:] = [WebReport("web", revision=Revision.numbers()["instances"])]
    patient.reaches(Status.STOPPED)


def test_requests_that_never_end_are_waited_for_until_the_timeout(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], reports: list[WebReport]
) -> None:
    fake_backend(drain_timeout=0.3)
    node.start()
    node.running()
    reports.append(WebReport("web", revision=10**9, in_flight={"one": 1}))
    began = time.monotonic()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    assert 0.3 <= time.monotonic() - began < 20


def test_without_a_broker_open_connections_are_waited_for(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(client: object) -> list[WebReport]:
        raise redis.ConnectionError("no broker")

    monkeypatch.setattr(drain, "read_reports", refuse)
    monkeypatch.setattr(drain, "BROKER_TIMEOUT_SECONDS", 0.1)
    fake_backend(drain_timeout=600)
    node.start()
    instance = node.running()
    stream = requests.post(
        f"http://127.0.0.1:{instance.port}/v1/chat/completions",
        json={"stream": True, "max_tokens": 6, "tps": 10},
        headers={"Authorization": f"Bearer key-{instance.pk}", "Connection": "close"},
        stream=True,
        timeout=30,
    )
    with stream:
        node.ask_stop()
        node.reaches(Status.SHUTTING_DOWN)
        # It should come to its end although no web process reports it.
        assert stream.text.rstrip().endswith("[DONE]")
    node.reaches(Status.STOPPED)


def test_a_stop_wins_over_a_crash_at_the_same_time(supervised: NodeUnderTest) -> None:
    pid = supervised.running(restart_delay=0).pid
    Instance.objects.update(desired_state=DesiredState.STOPPED)
    os.kill(pid or 0, 9)
    supervised.wake()
    supervised.reaches(Status.STOPPED)
    time.sleep(0.1)
    assert supervised.see().status == Status.STOPPED
    assert not children()
