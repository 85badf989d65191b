"""Broker, worker and web as services of their own, started as the systemd units start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from instances.supervisor.orphans import program
from tests.support.paths import ROOT
from tests.support.services import Services, unit
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path / "data")
    try:
        services.launch_all()
        yield services
    finally:
        services.end_all()


def test_a_stream_goes_on_over_restarts_of_worker_and_broker(services: Services) -> None:
    services.create("fake", {"model": "fake"})
    services.call("POST", "/api/v1/instances/fake/start?wait=60")
    pid = services.instance("fake")["pid"]
    key = services.new_key()
    answer = requests.post(
        f"{services.url}/v1/chat/completions",
        json={"model": "fake", "stream": True, "max_tokens": 300, "tps": 20},
        headers={"Authorization": f"Bearer {key}"},
        stream=True,
        timeout=60,
    )
    events = (line for line in answer.iter_lines() if line.startswith(b"data: "))
    next(events)
    # It should end well when it is told to, so that Restart= alone decides about the next.
    assert services.end("worker") == 0
    services.launch("worker")
    services.end("broker", signal.SIGKILL)
    services.launch("broker")
    services.end("worker", signal.SIGKILL)
    services.launch("worker")
    last = list(events)
    assert last[-1] == b"data: [DONE]"
    assert len(last) == 300
    assert services.until_status("fake", "running")["pid"] == pid


def test_services_end_cleanly_and_leave_the_backends_to_their_guard(services: Services) -> None:
    services.create("fake", {"model": "fake"})
    services.call("POST", "/api/v1/instances/fake/start?wait=60")
    pid = services.instance("fake")["pid"]

    def has_guard() -> bool:
        with suppress(psutil.NoSuchProcess):  # another process, which just ends
            return any(program.__file__ in each.cmdline() for each in services.processes())
        return False

    until(has_guard, "a guard")
    assert services.end("worker") == 0
    assert services.end("web") in (0, -signal.SIGTERM)  # systemd takes both for a clean end
    assert services.end("broker") == 0
    assert psutil.pid_exists(pid)
    until(has_guard, "the guard still there", seconds=10)


@pytest.mark.parametrize("service", ["broker", "worker", "web"])
def test_units_agree_with_each_other(service: str) -> None:
    section = unit(service)["Service"]
    assert section["ExecStart"].endswith(f"manage.py run --only {service}")
    for name in ("User", "WorkingDirectory", "Environment", "StateDirectory", "UMask"):
        assert section[name] == unit("worker")["Service"][name]
    assert section["Restart"] == "always"
    assert section["UMask"] == "0077"


def test_worker_unit_leaves_the_backends_alone() -> None:
    section = unit("worker")["Service"]
    assert section["KillMode"] == "process"
    assert section["OOMPolicy"] == "continue"
    for harmful in ("PrivateTmp", "PrivateUsers", "PrivateDevices", "ProcSubset", "PrivatePIDs"):
        assert harmful not in section
    assert "OOMScoreAdjust" not in section  # the backends would inherit it


def test_broker_of_ones_own_leaves_none_to_start(tmp_path: Path) -> None:
    environment = os.environ | {
        "LLAMACTL_DATA_DIRECTORY": str(tmp_path),
        "LLAMACTL_REDIS_URL": "redis://127.0.0.1:6379",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "run", "--only", "broker"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "redis.url" in done.stderr
