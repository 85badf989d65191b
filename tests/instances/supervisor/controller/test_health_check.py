"""Probes against the fake backend, and against listeners that misbehave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from instances.supervisor.controller import health_check
from instances.supervisor.controller.health_check import is_ready, pause_before_next
from tests.instances.supervisor.conftest import PROGRAM
from tests.support.until import until

PATHS = ("/health", "/v1/models")

Start = Callable[..., str]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def backend() -> Iterator[Start]:
    """Starts a fake backend with these knobs; returns its origin once it listens."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**knobs: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        argv = [sys.executable, "-S", "-E", str(PROGRAM), "--port", str(port)]
        environment = {"PATH": os.environ["PATH"], **knobs}
        started.append(subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL))
        until(lambda: listens(port))
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_healthy_is_ready(backend: Start) -> None:
    assert is_ready(backend(), PATHS, "")


def test_loading_is_not_ready(backend: Start) -> None:
    assert not is_ready(backend(FAKE_NEVER_HEALTHY="1"), PATHS, "")


def test_a_backend_without_health_is_asked_for_its_models(backend: Start) -> None:
    assert is_ready(backend(FAKE_NO_HEALTH="1"), PATHS, "")


def test_the_key_is_sent(backend: Start) -> None:
    origin = backend(FAKE_MODELS_NEED_KEY="1", LLAMA_API_KEY="k")
    assert is_ready(origin, ("/fake/stats",), "k")


def test_a_backend_that_wants_another_key_is_up(backend: Start) -> None:
    origin = backend(FAKE_NO_HEALTH="1", FAKE_MODELS_NEED_KEY="1", LLAMA_API_KEY="k")
    assert is_ready(origin, PATHS, "other")


def test_a_server_that_knows_no_path_is_not_ready(backend: Start) -> None:
    assert not is_ready(backend(), ("/nothing", "/here"), "")


def test_a_port_without_a_listener_is_not_ready() -> None:
    assert not is_ready("http://127.0.0.1:9", PATHS, "")


def test_a_probe_of_a_hung_backend_times_out(
    backend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "READ_SECONDS", 0.1)
    assert not is_ready(backend(FAKE_HANG="1"), PATHS, "")


def test_a_proxy_of_the_environment_is_not_used(
    backend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert is_ready(backend(), PATHS, "")


@pytest.mark.parametrize(
    ("elapsed", "pause"), [(0.0, 0.1), (0.9, 0.1), (3.0, 0.3), (10.0, 1.0), (1000.0, 1.0)]
)
def test_the_longer_a_start_takes_the_rarer_are_its_probes(elapsed: float, pause: float) -> None:
    assert pause_before_next(elapsed) == pytest.approx(pause)
