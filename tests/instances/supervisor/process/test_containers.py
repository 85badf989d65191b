"""Containers, with a docker that is a script: it runs the fake backend as its container."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from instances.states import Status
from instances.supervisor.process.containers import stop_container
from llamactl.config import AppConfig, current
from tests.instances.supervisor.conftest import PROGRAM, NodeUnderTest, is_alive
from tests.support.until import until

# docker run: a client (this) and the container (a process of its own session, as a daemon's is).
DOCKER = """#!{python} -S
import os, signal, subprocess, sys, time
home, words = {home!r}, sys.argv[1:]
with open(home + "/calls", "a") as calls:
    calls.write(words[0] + "\\n")
name = words[words.index("--name") + 1] if words[0] == "run" else words[-1]
record = home + "/" + name
if words[0] == "run":
    if os.path.exists(record):
        sys.exit("docker: the name is already in use by container")
    image = words.index("image")
    environ = {{key: value for key, value in os.environ.items() if "LLAMACTL" not in key}}
    program = [{python!r}, "-S", "-E", {program!r}, *words[image + 1:]]
    container = subprocess.Popen(program, start_new_session=True, env=environ)
    with open(record, "w") as file:
        file.write(str(container.pid))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: container.send_signal(number))
    code = container.wait()
    if os.path.exists(record):
        os.unlink(record)
    sys.exit(code if code >= 0 else 128 - code)
try:
    pid = int(open(record).read())
except FileNotFoundError:
    sys.exit("Error: No such container: " + name)
try:
    os.kill(pid, signal.SIGKILL)
except ProcessLookupError:
    pass
if words[0] == "rm":
    os.unlink(record)
"""


class Docker:
    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def calls(self) -> list[str]:
        return (self._home / "calls").read_text().split()

    def container(self) -> int:
        """The pid of the one container."""
        return int(next(self._home.glob("llamactl-*")).read_text())

    def has_containers(self) -> bool:
        return any(self._home.glob("llamactl-*"))


@pytest.fixture
def docker(
    node: NodeUnderTest,
    override: Callable[..., AppConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Docker:
    program = tmp_path / "docker"
    home = tmp_path / "home"
    home.mkdir()
    program.write_text(DOCKER.format(python=sys.executable, home=str(home), program=str(PROGRAM)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    backend = current().backends.llama_cpp
    assert backend.docker is not None
    settings = backend.docker.model_copy(update={"image": "image", "enabled": True, "args": []})
    override(backends={"llama_cpp": backend.model_copy(update={"docker": settings})})
    return Docker(home)


def test_a_container_is_stopped_and_removed(node: NodeUnderTest, docker: Docker) -> None:
    node.start()
    node.running()
    container = docker.container()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    assert not is_alive(container)
    until(lambda: sorted(docker.calls) == ["rm", "rm", "run", "stop"])
    assert not docker.has_containers()


def test_a_container_whose_client_was_killed_is_removed_before_the_next(
    node: NodeUnderTest, docker: Docker
) -> None:
    node.start()
    pid = node.running(restart_delay=0).pid
    container = docker.container()
    os.kill(pid or 0, signal.SIGKILL)
    until(lambda: node.see().restarts == 1)
    node.reaches(Status.RUNNING)
    assert not is_alive(container)
    assert docker.container() != container


def test_a_container_left_by_an_earlier_worker_is_removed_first(
    node: NodeUnderTest, docker: Docker, tmp_path: Path
) -> None:
    instance = node.create()
    (tmp_path / "home" / f"llamactl-one-{instance.port}").write_text("4194305")
    node.start()
    node.ask_start()
    node.reaches(Status.RUNNING)


def test_a_container_that_ignores_its_signals_is_killed(
    node: NodeUnderTest, docker: Docker
) -> None:
    node.start()
    node.running(FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1")
    container = docker.container()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    until(lambda: not is_alive(container))


def test_a_late_stop_does_not_hit_the_next_container(
    node: NodeUnderTest, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(name: str, seconds: float) -> None:
        time.sleep(0.5)
        stop_container(name, seconds)

    monkeypatch.setattr("instances.supervisor.controller.phases.stopping.stop_container", late)
    node.start()
    node.running(auto_restart=False)
    node.ask_restart()
    node.reaches(Status.RUNNING)
    time.sleep(0.2)
    assert node.see().status == Status.RUNNING


def test_a_shutdown_waits_until_the_container_is_gone(node: NodeUnderTest, docker: Docker) -> None:
    node.start()
    node.running()
    node.stop()
    assert not docker.has_containers()
    assert docker.calls.count("rm") == 2
