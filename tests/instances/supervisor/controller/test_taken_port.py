"""Another program listens on the port of an instance: it gets neither the key nor a request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from instances.models import Instance
from instances.ports import is_bindable
from instances.states import Status
from instances.supervisor.controller import port_watch
from instances.supervisor.controller.phases import starting
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest
from tests.support.until import until


class Thief:
    """A program of another user, so to speak: no relative of the backends."""

    def __init__(self, port: int) -> None:
        self.port = port
        program = (
            "import http.server, sys\n"
            "class Handler(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        print(self.path, self.headers.items(), flush=True)\n"
            "        self.send_response(200); self.send_header('Content-Length', '0')\n"
            "        self.end_headers()\n"
            "    do_POST = do_GET\n"
            "    def log_message(self, *_): pass\n"
            "server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)\n"
            "print('listening', flush=True)\n"
            "server.serve_forever()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, str(port)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"

    def end(self) -> str:
        """End it; returns the requests that it got."""
        self.process.kill()
        return self.process.communicate()[0]


@pytest.fixture
def steal() -> Iterator[Callable[[int], Thief]]:
    thieves: list[Thief] = []

    def start(port: int) -> Thief:
        thieves.append(Thief(port))
        return thieves[-1]

    yield start
    for thief in thieves:
        with suppress(ValueError):
            thief.end()


def test_a_listener_that_is_there_first_fails_the_start(
    supervised: NodeUnderTest,
    steal: Callable[[int], Thief],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port is free when it is tested, and taken before the backend has bound it."""
    monkeypatch.setattr(starting, "is_bindable", lambda *_: True)
    port = supervised.create(FAKE_BIND_SECONDS="600").port
    thief = steal(port)
    supervised.ask_start()
    instance = supervised.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["reason"] == "port_in_use"
    who = f"port {port} is used by process {thief.process.pid} (python"
    assert instance.failure["details"].startswith(who)
    assert thief.end() == ""


def test_a_ready_backend_that_loses_its_port_is_ended(
    supervised: NodeUnderTest,
    steal: Callable[[int], Thief],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backend whose listening child crashes leaves the port to the next program."""
    monkeypatch.setattr(port_watch, "PAUSE_SECONDS", 0.05)
    instance = supervised.running(auto_restart=False, FAKE_UNBIND="1")
    unbind(instance)
    thief = steal(instance.port)
    instance = supervised.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["reason"] == "port_in_use"
    assert f"process {thief.process.pid} " in instance.failure["details"]
    assert thief.end() == ""


def test_it_is_started_again_on_another_port(
    supervised: NodeUnderTest,
    steal: Callable[[int], Thief],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(port_watch, "PAUSE_SECONDS", 0.05)
    first = supervised.running(restart_delay=0, FAKE_UNBIND="1")
    unbind(first)
    steal(first.port)
    until(lambda: supervised.see().restarts)
    monkeypatch.setattr(port_watch, "PAUSE_SECONDS", 600.0)
    assert supervised.reaches(Status.RUNNING).port != first.port


def test_a_thief_that_took_the_port_between_two_workers_is_noticed(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    steal: Callable[[int], Thief],
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    instance = node.running(auto_restart=False, FAKE_UNBIND="1")
    node.stop()
    unbind(instance)
    thief = steal(instance.port)
    node.start()
    failed = node.reaches(Status.FAILED)
    assert failed.failure is not None
    assert failed.failure["reason"] == "port_in_use"
    assert thief.end() == ""


def test_a_child_that_listens_for_its_parent_is_ours(supervised: NodeUnderTest) -> None:
    instance = supervised.running(FAKE_CHILD="listener")
    assert instance.failure is None


def unbind(instance: Instance) -> None:
    """Let the backend close its listener, and live on."""
    os.kill(instance.pid or 0, signal.SIGUSR1)
    until(lambda: is_bindable(instance.port))
