"""Containers, with a docker that is a script: it runs the fake backend as its container."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instances import launch
from instances.backends.docker import container_name, unlabelled_name
from instances.installation import installation_id
from instances.states import Status
from instances.supervisor.controller import docker_calls
from instances.supervisor.process.containers import stop_container
from llamactl.config import AppConfig, current
from tests.instances.supervisor.conftest import PROGRAM, NodeUnderTest, is_alive
from tests.support.until import until

# docker run: a client (this) and the container (a process of its own session, as a daemon's is).
# A record in the home, named as the container, holds its pid, which is its id, and its label.
DOCKER = """#!{python} -S
import os, signal, subprocess, sys, time
home, words = {home!r}, sys.argv[1:]
with open(home + "/calls", "a") as calls:
    calls.write(words[0] + "\\n")
if words[0] == "run":
    record = home + "/" + words[words.index("--name") + 1]
    if os.path.exists(record):
        sys.exit("docker: the name is already in use by container")
    image = words.index("image")
    environ = {{key: value for key, value in os.environ.items() if "LLAMACTL" not in key}}
    program = [{python!r}, "-S", "-E", {program!r}, *words[image + 1:]]
    container = subprocess.Popen(program, start_new_session=True, env=environ)
    labels = [word.partition("=")[2] for word in words if word.startswith("llamactl.installation=")]
    with open(record, "w") as file:
        file.write(" ".join([str(container.pid), *labels]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: container.send_signal(number))
    code = container.wait()
    if os.path.exists(record):
        os.unlink(record)
    sys.exit(code if code >= 0 else 128 - code)
found = {{}}
for name in set(os.listdir(home)) - {{"calls"}}:
    try:
        found[name] = open(home + "/" + name).read()
    except FileNotFoundError:
        continue
names = [name for name, text in found.items() if words[-1] in (name, text.split()[0])]
if not names:
    sys.exit("Error: No such container: " + words[-1])
record = home + "/" + names[0]
if words[0] == "inspect":
    print(found[names[0]])
    sys.exit()
try:
    os.kill(int(found[names[0]].split()[0]), signal.SIGKILL)
except ProcessLookupError:
    pass
if words[0] == "rm" and os.path.exists(record):
    os.unlink(record)
"""

OTHER = "4194305"
"""Id of a container whose process is gone."""


class Docker:
    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def home(self) -> Path:
        return self._home

    @property
    def changes(self) -> list[str]:
        """The calls that start, stop or remove a container."""
        return [call for call in self.calls if call != "inspect"]

    @property
    def calls(self) -> list[str]:
        return (self._home / "calls").read_text().split()

    def container(self) -> int:
        """The pid of the one container."""
        return int(next(self._home.glob("llamactl-*")).read_text().split()[0])

    def has_containers(self) -> bool:
        return any(self._home.glob("llamactl-*"))


@pytest.fixture
def docker(
    node: NodeUnderTest,
    override: Callable[..., AppConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Docker]:
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
    yield Docker(home)
    # A container outlives its client; a failed test may leave one behind.
    for record in home.glob("llamactl-*"):
        pid = int(record.read_text().split()[0])
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_container_is_stopped_and_removed(node: NodeUnderTest, docker: Docker) -> None:
    node.start()
    node.running()
    container = docker.container()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    assert not is_alive(container)
    until(lambda: not docker.has_containers() and docker.calls.count("inspect") == 3)
    assert docker.changes[0] == "run"
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
    node: NodeUnderTest, docker: Docker
) -> None:
    record = docker.home / container_name(installation_id(), "one", node.create().port)
    record.write_text(f"{OTHER} {installation_id()}")
    node.start()
    node.ask_start()
    node.reaches(Status.RUNNING)
    assert docker.changes == ["rm", "run"]


@pytest.mark.parametrize("label", ["", "ffffffff"])
def test_a_container_of_another_program_is_left_alone(
    node: NodeUnderTest, docker: Docker, label: str
) -> None:
    record = docker.home / container_name(installation_id(), "one", node.create().port)
    record.write_text(f"{OTHER} {label}")
    node.start()
    node.ask_start()
    failure = node.reaches(Status.FAILED).failure
    assert "the name is already in use" in str(failure)
    assert record.read_text() == f"{OTHER} {label}"
    assert set(docker.changes) == {"run"}


def test_a_container_with_the_name_of_an_earlier_release_is_left_alone(
    node: NodeUnderTest, docker: Docker
) -> None:
    record = docker.home / unlabelled_name("one", node.create().port)
    record.write_text(OTHER)
    node.start()
    node.ask_start()
    node.reaches(Status.RUNNING)
    node.ask_stop()
    node.reaches(Status.STOPPED)
    node.stop()
    assert record.read_text() == OTHER


def is_idle(node: NodeUnderTest) -> bool:
    """Whether no docker command of the supervisor is pending."""
    assert node.supervisor is not None
    controllers = node.supervisor._all_controllers()
    return not any(each._instance.docker.is_pending for each in controllers)


@pytest.fixture
def adopted(
    node: NodeUnderTest,
    docker: Docker,
    override: Callable[..., AppConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """The client's pid of a container that llamactl 0.1 started, and this worker has adopted."""
    override(instances={"keep_backends": True})
    with monkeypatch.context() as before:
        before.setattr(launch, "container_name", lambda _, name, port: unlabelled_name(name, port))
        before.setattr(launch, "labels_of", lambda *_: {})
        node.start()
        pid = node.running(restart_delay=0).pid
        node.stop()
    assert len(list(docker.home.glob("llamactl-one-*"))) == 1
    node.start()
    until(lambda: docker.calls.count("inspect") == 2 and is_idle(node))
    assert pid is not None
    return pid


def test_an_adopted_container_without_labels_is_stopped_and_removed(
    node: NodeUnderTest, docker: Docker, adopted: int
) -> None:
    container = docker.container()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    until(lambda: is_idle(node))
    assert not is_alive(container)
    assert not docker.has_containers()


def test_an_adopted_container_without_labels_is_removed_after_its_client(
    node: NodeUnderTest, docker: Docker, adopted: int
) -> None:
    container = docker.container()
    os.kill(adopted, signal.SIGKILL)
    until(lambda: node.see().restarts == 1)
    node.reaches(Status.RUNNING)
    assert not is_alive(container)
    assert next(docker.home.glob("llamactl-*")).name.startswith(f"llamactl-{installation_id()}-")
    node.ask_stop()
    node.reaches(Status.STOPPED)


def test_a_container_that_ignores_its_signals_is_killed(
    node: NodeUnderTest, docker: Docker
) -> None:
    node.start()
    node.running(FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1")
    container = docker.container()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    until(lambda: not is_alive(container))
    assert docker.changes[:2] == ["run", "stop"]


def test_a_late_stop_does_not_hit_the_next_container(
    node: NodeUnderTest, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(name: str, seconds: float) -> None:
        time.sleep(0.5)
        stop_container(name, seconds)

    monkeypatch.setattr(docker_calls, "stop_container", late)
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
    assert docker.calls[-1] == "inspect" or docker.changes[-1] == "rm"
