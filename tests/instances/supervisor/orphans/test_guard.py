"""The orphan guard ends the backends of a node without a worker."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from instances import lifecycle
from instances.models import Instance
from instances.states import DesiredState, Status
from instances.supervisor.orphans import guard, program
from instances.supervisor.process import control_group
from instances.supervisor.process.markers import Marker, marked_processes
from instances.supervisor.process.process_table import read_stat
from llamactl.config import current
from llamactl.core.locks import acquire
from tests.instances.supervisor.conftest import PROGRAM, NodeUnderTest, is_alive
from tests.support.paths import ROOT
from tests.support.until import until

pytestmark = pytest.mark.slow  # a worker of its own for each test

WORKER = Path(__file__).with_name("worker_program.py")
SECONDS = 30.0
"""A worker takes a second or two to start, and more on a busy machine."""
FAR_OFF = 600.0


class Workers:
    """Workers of the node, each a process; and the guards that they start."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self.output = directory / "worker.txt"
        self._command = command
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, grace: float, patience: float = 0.3) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "LLAMACTL_DATABASE_PATH": str(connection.settings_dict["NAME"]),
            "LLAMACTL_LLAMACPP_COMMAND": self._command[0],
            "LLAMACTL_LLAMACPP_ARGS": " ".join(self._command[1:]),
            "LLAMACTL_ORPHAN_GRACE": f"{grace}s",
            "LLAMACTL_STOP_TIMEOUT": f"{patience}s",
            "LLAMACTL_DRAIN_TIMEOUT": "0",
            "LLAMACTL_KEEP_BACKENDS": "true",
        }
        with self.output.open("ab") as output:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, str(WORKER)], env=environment, stdout=output, stderr=output
                )
            )

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        process = self._processes.pop()
        process.send_signal(number)
        process.wait(SECONDS)

    def close(self) -> None:
        while self._processes:
            self.end()


@pytest.fixture
def workers(
    transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workers]:
    monkeypatch.setattr(lifecycle, "wake_node", lambda name: None)
    workers = Workers(tmp_path, [sys.executable, "-S", "-E", str(PROGRAM)])
    guard_log().unlink(missing_ok=True)
    yield workers
    workers.close()
    for pid in [*guards(), *marked()]:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def node(workers: Workers) -> NodeUnderTest:
    return NodeUnderTest()


def lock_path() -> str:
    return str(current().data_dir.resolve() / "node-main.lock")


def guard_log() -> Path:
    return current().data_dir / "node-main.guard.log"


def guards() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if os.fsencode(guard.PROGRAM) in words and os.fsencode(lock_path()) in words:
                found.append(int(path.parent.name))
    return found


def marked() -> list[int]:
    """The living processes that carry the node's marker."""
    return [each.pid for each in marked_processes() if each.marker.node == lock_path()]


def running(node: NodeUnderTest, name: str = "one", **options: Any) -> int:
    node.create(name, **options)
    node.ask_start(name)
    pid = node.reaches(Status.RUNNING, name, seconds=SECONDS).pid
    assert pid is not None
    return pid


def the_guard() -> int:
    pid: int = until(guards, seconds=SECONDS)[0]
    return pid


@contextmanager
def suspended(guard: int) -> Iterator[None]:
    """A guard that waits for slow workers of a busy machine."""
    os.kill(guard, signal.SIGSTOP)
    yield
    os.kill(guard, signal.SIGCONT)


def test_a_worker_that_is_back_in_time_finds_its_backends(
    node: NodeUnderTest, workers: Workers
) -> None:
    workers.start(grace=FAR_OFF)
    pid = running(node)
    old = the_guard()
    workers.end()
    until(lambda: "no worker; 1 backends" in guard_log().read_text(), seconds=SECONDS)
    # It should hold no lock while it waits.
    os.close(acquire(Path(lock_path()), wait_seconds=1.0))
    workers.start(grace=FAR_OFF)
    # It should have a guard of the new worker's, and the same backend.
    until(lambda: guards() and old not in guards(), seconds=SECONDS)
    assert len(guards()) == 1
    assert is_alive(pid)
    assert f"adopted process {pid}" in workers.output.read_text()
    assert node.reaches(Status.RUNNING).pid == pid
    assert node.history() == ["starting", "running"]


def test_backends_are_ended_when_no_worker_comes_back(
    node: NodeUnderTest, workers: Workers
) -> None:
    workers.start(grace=1.5)
    pids = [running(node), running(node, "two", FAKE_CHILD="session")]
    the_guard()
    workers.end()
    until(lambda: not guards(), seconds=SECONDS)
    assert not marked()
    assert not any(map(is_alive, pids))
    said = guard_log().read_text()
    assert all(f"SIGINT to process {pid}" in said for pid in pids)
    assert guard_log().stat().st_mode & 0o777 == 0o600
    # The desired state has not changed, and the next worker starts them again.
    assert set(Instance.objects.values_list("desired_state", flat=True)) == {DesiredState.RUNNING}
    workers.start(grace=FAR_OFF)
    until(lambda: node.see().pid not in (None, *pids), seconds=SECONDS)
    node.reaches(Status.RUNNING, seconds=SECONDS)


def test_a_daemon_of_a_backend_is_ended_with_it(node: NodeUnderTest, workers: Workers) -> None:
    """It has forked twice and overwritten its environment: only its control group is left."""
    own = control_group.own_group()
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("no control group may be made here")
    workers.start(grace=1.5)
    running(node, FAKE_CHILD="daemon")
    daemon = int(until(lambda: re.search(r"^daemon (\d+)$", node.log(), re.MULTILINE)).group(1))
    the_guard()
    workers.end()
    assert is_alive(daemon)
    until(lambda: not is_alive(daemon), seconds=SECONDS)
    until(lambda: not guards(), seconds=SECONDS)


def test_the_grace_counts_from_the_end_of_a_worker_that_ended_in_order(
    node: NodeUnderTest, workers: Workers
) -> None:
    workers.start(grace=1.5)
    pid = running(node)
    with suspended(the_guard()):
        workers.end(signal.SIGTERM)
        assert is_alive(pid)  # keep_backends
    until(lambda: not is_alive(pid), seconds=SECONDS)
    until(lambda: not guards(), seconds=SECONDS)


@pytest.mark.slow
def test_a_worker_that_is_back_during_the_end_waits_and_starts_new_processes(
    node: NodeUnderTest, workers: Workers
) -> None:
    workers.start(grace=1.0, patience=2.0)
    pid = running(node, FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1")
    guard = the_guard()
    workers.end()
    until(lambda: f"SIGINT to process {pid}" in guard_log().read_text(), seconds=SECONDS)
    with suspended(guard):
        assert is_alive(pid)
        workers.start(grace=FAR_OFF)
        until(lambda: "waiting for it" in workers.output.read_text(), seconds=SECONDS)
    new = until(lambda: set(marked()) - {pid}, seconds=SECONDS)
    assert not is_alive(pid)
    assert node.reaches(Status.RUNNING, seconds=SECONDS).pid in new
    assert len(marked()) == 1
    assert f"adopted process {pid}" not in workers.output.read_text()
    assert node.history() == ["starting", "running", "restarting", "starting", "running"]


def test_processes_of_others_are_not_ended(node: NodeUnderTest, workers: Workers) -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(600)"],
            env=marker.to_environment() if marker else {},
            start_new_session=True,
        )
        for marker in (None, Marker("/elsewhere/node-main.lock", "1:one", uuid.uuid4().hex))
    ]
    try:
        workers.start(grace=1.0)
        pid = running(node)
        the_guard()
        workers.end()
        until(lambda: not is_alive(pid) and not guards(), seconds=SECONDS)
        assert all(other.poll() is None for other in others)
        assert guard_log().read_text().count("SIGINT to process") == 1
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_killed_guard_is_replaced_and_none_is_kept_without_backends_or_a_grace(
    node: NodeUnderTest, workers: Workers
) -> None:
    workers.start(grace=FAR_OFF)
    running(node)
    killed = the_guard()
    os.kill(killed, signal.SIGKILL)
    guard = until(lambda: [pid for pid in guards() if pid != killed], seconds=SECONDS)[0]
    assert guards() == [guard]
    node.ask_stop()
    node.reaches(Status.STOPPED, seconds=SECONDS)
    workers.end(signal.SIGTERM)
    until(lambda: not is_alive(guard))
    workers.start(grace=0)
    node.ask_start()
    node.reaches(Status.RUNNING, seconds=SECONDS)
    assert not guards()


@pytest.mark.llama_cpp
def test_the_real_llama_cpp_is_ended_too(
    node: NodeUnderTest,
    workers: Workers,
    gemma_model: Path,
) -> None:
    workers._command = ["llama-server"]
    workers.start(grace=1.5, patience=5.0)
    pid = running(
        node,
        model=str(gemma_model),
        backend_options={"ctx_size": 512, "threads": 1, "parallel": 1},
    )
    family = marked()
    assert pid in family
    the_guard()
    workers.end()
    # By pid: an exiting process has no environment any more.
    until(lambda: not any(map(is_alive, family)), seconds=SECONDS)
    assert "SIGTERM" not in guard_log().read_text()
    until(lambda: not guards(), seconds=SECONDS)


def test_a_backend_that_overwrote_its_markers_is_ended_by_its_pid(tmp_path: Path) -> None:
    lock, orders = tmp_path / "node-x.lock", tmp_path / "node-x.guard"
    lock.touch()
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    backend, other = (subprocess.Popen(sleep, env={}, start_new_session=True) for _ in "ab")
    try:
        stats = [read_stat(each.pid) for each in (backend, other)]
        assert stats[0] is not None
        assert stats[1] is not None
        # The other process has a pid that was a backend's once.
        orders.write_text(
            f"token\n{backend.pid} {stats[0].started_ticks}\n"
            f"{other.pid} {stats[1].started_ticks - 1}\n"
        )
        arguments = [str(lock), str(orders), "token", "0.1", "5", "", ""]
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(program.__file__), *arguments], timeout=SECONDS
        )
        assert done.returncode == 0
        assert backend.wait(SECONDS) == -signal.SIGINT
        assert other.poll() is None
    finally:
        for process in (backend, other):
            process.kill()
            process.wait()


def test_a_noted_descendant_is_ended_and_no_later_process_with_its_pid(tmp_path: Path) -> None:
    lock, orders = tmp_path / "node-x.lock", tmp_path / "node-x.guard"
    lock.touch()
    noted, other = (subprocess.Popen(["sleep", "600"], env={}) for _ in "ab")
    try:
        stats = [read_stat(each.pid) for each in (noted, other)]
        assert stats[0] is not None
        assert stats[1] is not None
        orders.write_text(
            f"token\n{noted.pid} {stats[0].started_ticks} of 4194303 1\n"
            f"{other.pid} {stats[1].started_ticks - 1} of 4194303 1\n"
        )
        files = program.NodeFiles(str(lock), str(orders), "token")
        assert program.end_all(str(lock), files.known(), 5.0, program.Docker("", ""))
        assert noted.wait(SECONDS) == -signal.SIGINT
        assert other.poll() is None
        assert guard.noted_by_last_worker(lock) == {
            (4194303, 1): {
                (noted.pid, stats[0].started_ticks),
                (other.pid, stats[1].started_ticks - 1),
            }
        }
    finally:
        for process in (noted, other):
            process.kill()
            process.wait()


def test_a_recorded_process_with_the_marker_of_another_node_is_not_ended(tmp_path: Path) -> None:
    # Adopted by pid and start time once, but the worker of another data directory owns it.
    lock = str(tmp_path / "node-x.lock")
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    marker = Marker("/elsewhere/node-main.lock", "1:one", uuid.uuid4().hex)
    other = subprocess.Popen(sleep, env=marker.to_environment(), start_new_session=True)
    wiped = subprocess.Popen(sleep, env={}, start_new_session=True)
    # exec closes the pipe that Popen waits for before the new environment can be read.
    until(lambda: program.read_environ(other.pid) not in (None, [b""]))
    try:
        stats = {each.pid: read_stat(each.pid) for each in (other, wiped)}
        recorded = {(pid, stat.started_ticks) for pid, stat in stats.items() if stat is not None}
        found = program.find_processes(lock, program.KnownProcesses(recorded))
        assert [each.pid for each in found] == [wiped.pid]
        for each in found:
            each.close()
        assert program.end_all(lock, program.KnownProcesses(recorded), 5.0, program.Docker("", ""))
        assert other.poll() is None
        assert wiped.wait(SECONDS) == -signal.SIGINT
    finally:
        for process in (other, wiped):
            process.kill()
            process.wait()


def test_a_process_of_another_user_is_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A guard of root can read the environment of everybody, and anybody can forge a marker.
    marker = Marker(str(tmp_path / "node-x.lock"), "1:one", "x", container="victim")
    process = subprocess.Popen(["sleep", "60"], env=marker.to_environment(), start_new_session=True)
    try:
        found = until(lambda: program.find_processes(marker.node, program.KnownProcesses(set())))
        found[0].close()
        monkeypatch.setattr(os, "getuid", lambda: 4242)
        assert program.find_processes(marker.node, program.KnownProcesses(set())) == []
    finally:
        process.kill()
        process.wait()


def test_a_dismissed_guard_ends(tmp_path: Path) -> None:
    lock, orders = tmp_path / "node-x.lock", tmp_path / "node-x.guard"
    lock.touch()
    orders.write_text("another\n")
    arguments = [str(lock), str(orders), "token", "600", "5", "", ""]
    command = [sys.executable, "-I", "-S", str(program.__file__), *arguments]
    assert subprocess.run(command, timeout=SECONDS).returncode == 0
    held = os.open(lock, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)  # also while a worker is there
    try:
        assert subprocess.run(command, timeout=SECONDS).returncode == 0
    finally:
        os.close(held)


@pytest.mark.parametrize(
    ("label", "is_ours"), [("0a1b2c3d", True), ("ffffffff", False), ("", False)]
)
def test_a_container_is_stopped_and_removed_only_with_our_label(
    tmp_path: Path, label: str, is_ours: bool
) -> None:
    lock = tmp_path / "node-x.lock"
    lock.touch()
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> "${{0%/*}}/calls"\n[ $1 != inspect ] || echo cafe {label}\n'
    )
    docker.chmod(0o700)
    # The name holds the id of an installation; it proves nothing.
    marker = Marker(str(lock), "1:one", uuid.uuid4().hex, "llamactl-0a1b2c3d-one-8000")
    client = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"],
        env=marker.to_environment(),
        start_new_session=True,
    )
    try:
        orders = str(tmp_path / "node-x.guard")
        arguments = [str(lock), orders, "token", "0.1", "5", str(docker), "0a1b2c3d"]
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(program.__file__), *arguments], timeout=SECONDS
        )
        assert done.returncode == 0
        assert client.wait(SECONDS) == -signal.SIGINT
    finally:
        client.kill()
        client.wait()
    inspected, *others = (tmp_path / "calls").read_text().splitlines()
    assert inspected.startswith("inspect --type container ")
    assert inspected.endswith(" llamactl-0a1b2c3d-one-8000")
    assert others == (["stop -t 10 cafe", "rm -f cafe"] if is_ours else [])
