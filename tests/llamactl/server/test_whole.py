"""The one command with everything real: start, ``kill -9``, start again, Ctrl-C."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.stack import free_port, kill_all

START_SECONDS = 45.0
END_SECONDS = 20.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


class Run:
    """``manage.py run`` in a data directory, started from another directory than its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.output_path = data_dir.with_name("output")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.children: list[psutil.Process] = []

    def start(self) -> str:
        """Returns what it said until it was ready."""
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "llamactl.settings",
            "LLAMACTL_DATA_DIRECTORY": str(self.data_dir),
            "LLAMACTL_PORT": str(self.port),
            "LLAMACTL_WEB_PROCESSES": "2",
        }
        del environment["LLAMACTL_MANAGEMENT_KEYS"]
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "run"],
                cwd=self.data_dir.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while "Stop:" not in (text := self.output_path.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        return text

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)

    def get(self, path: str, key: str = "") -> tuple[int, str]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            client.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
            answer = client.getresponse()
            return answer.status, answer.read().decode().strip()
        finally:
            client.close()


def is_alive(process: psutil.Process) -> bool:
    """A zombie that nobody has reaped yet is as dead as any."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "data")
    yield run
    if run.process is not None and run.process.poll() is None:
        run.process.kill()
        run.process.wait()
    _, alive = psutil.wait_procs(run.children, timeout=END_SECONDS)
    kill_all(alive)
    assert alive == []


@pytest.mark.slow
def test_the_whole_stack_survives_kill_9_and_ends_with_ctrl_c(run: Run) -> None:
    said = run.start()
    stages = re.findall(r"^(\w+)(?: \d)? ready", said, re.MULTILINE)
    assert stages == ["database", "broker", "worker", "web", "web"]
    key = (run.data_dir / "management_key").read_text().strip()
    assert key in said
    assert (run.data_dir / "admin_password").read_text().strip() in said
    assert run.get("/api/v1/instances", key) == (200, "[]")
    assert run.get("/api/v1/instances")[0] == 401
    # It should hold little memory, since it only watches the others.
    assert run.process is not None
    assert "site-packages" not in Path(f"/proc/{run.process.pid}/maps").read_text()

    # It should start again at once after a kill, which leaves its children a moment to end.
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    killed = run.children
    said = run.start()
    assert not any(is_alive(process) for process in killed)
    assert "database ready" not in said
    assert run.get("/api/v1/instances", key) == (200, "[]")

    assert run.end(signal.SIGINT) == 0
    said = run.output_path.read_text()
    stopped = re.findall(r"^(\w+)(?: \d)? stopped", said, re.MULTILINE)
    assert stopped == ["web", "web", "worker", "broker"], said
    assert "Traceback" not in said
    with pytest.raises(ConnectionRefusedError):
        run.get("/healthz")
