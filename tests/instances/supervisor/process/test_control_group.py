"""The control group of a launch: its members, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from instances.supervisor.process import adoption, control_group, markers, pidfd, process_table
from instances.supervisor.process.adoption import kill_lost, kill_stragglers
from instances.supervisor.process.control_group import ControlGroup, create_for, own_group
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process, spawn
from instances.supervisor.process.process_table import read_stat, read_younger
from tests.instances.supervisor.conftest import is_alive
from tests.support.until import until

AT_THE_GATE = "read line <gate; "


@pytest.fixture
def own() -> Path:
    found = own_group()
    if found is None or not os.access(found, os.W_OK):
        pytest.skip("no control group may be made here")
    return found


@pytest.fixture
def marker() -> Marker:
    return Marker("/nowhere/node-test.lock", "1:one", uuid.uuid4().hex)


Shell = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def shell(marker: Marker, tmp_path: Path) -> Iterator[Shell]:
    """Starts a script as a launch, still without a control group."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], **marker.to_environment()}
        started.append(
            subprocess.Popen(
                ["/bin/sh", "-c", script], env=environment, cwd=tmp_path, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    kill_stragglers(marker.launch)


@pytest.fixture
def launched(marker: Marker, tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Starts a script as the supervisor starts a backend."""

    def start(script: str) -> Process:
        log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            return spawn(
                ["/bin/sh", "-c", script],
                environment={"PATH": os.environ["PATH"]},
                marker=marker,
                directory=tmp_path,
                log=log,
            )
        finally:
            os.close(log)

    yield start
    kill_stragglers(marker.launch)


def written_pid(directory: Path) -> int:
    file = directory / "pid"
    return int(until(lambda: file.read_text() if file.exists() else ""))


def until_it_is(pid: int, program: str) -> None:
    """Wait until the process runs the program: while it is loaded, its environment is empty."""
    until(lambda: psutil.Process(pid).name() == program and markers.marked_process(pid))


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe that a script waits for, until it is written to."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def clean_up_after(process: Process) -> int:
    """Do what the supervisor does when a process has exited; returns the number of killed ones."""
    until(process.has_exited)
    process.reap()
    return kill_stragglers(
        process.marker.launch,
        process.control_group,
        process.noted,
        is_all_in_group=process.ended_in_group,
    )


def test_a_daemon_that_was_forked_before_the_group_was_made_is_in_it(
    own: Path, shell: Shell, marker: Marker, tmp_path: Path
) -> None:
    """Its parent has ended and its session is another: only its marker tells its launch."""
    leader = shell("(setsid sleep 600 & echo $! >pid); exec sleep 600")
    daemon = written_pid(tmp_path)
    until(lambda: (stat := read_stat(daemon)) is not None and stat.session == daemon)
    group = create_for(marker.launch, leader.pid)
    assert group is not None
    assert {leader.pid, daemon} <= group.pids()
    group.kill()
    until(group.remove)
    assert not is_alive(daemon)


def test_the_children_of_a_leader_that_has_ended_are_in_its_group(
    own: Path, shell: Shell, marker: Marker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should be so although the leader ended while it was moved."""
    leader = shell("env -i sleep 600 & echo $! >pid; wait")
    child = written_pid(tmp_path)
    add = ControlGroup.add

    def add_and_end(group: ControlGroup, pid: int) -> None:
        add(group, pid)
        if pid == leader.pid:
            leader.kill()
            until(lambda: not is_alive(leader.pid))

    monkeypatch.setattr(ControlGroup, "add", add_and_end)
    group = create_for(marker.launch, leader.pid)
    assert group is not None
    assert group.pids() == {child}
    group.kill()
    until(group.remove)


def test_a_launch_in_its_group_is_ended_without_a_scan_of_all_processes(
    own: Path,
    launched: Callable[[str], Process],
    gate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop should cost the same with thousands of processes on the machine."""

    def scanned(*_: object) -> Any:
        pytest.fail("all processes were read")

    with monkeypatch.context() as patch:
        for module in (adoption, pidfd, process_table):
            patch.setattr(module, "read_table", scanned)
        patch.setattr(adoption, "marked_processes", scanned)
        process = launched(AT_THE_GATE + "(setsid env -i sleep 600 & echo $! >pid); exit 3")
        gate.write_text("go on\n")
        daemon = written_pid(tmp_path)
        clean_up_after(process)
    assert process.ended_in_group
    assert process.control_group is not None
    assert not process.control_group.path.exists()
    assert not is_alive(daemon)


def test_a_leader_that_was_moved_out_of_its_group_leaves_nothing_behind(
    own: Path, launched: Callable[[str], Process], gate: Path, tmp_path: Path
) -> None:
    """As by systemd-run --scope: its children are not in the group, and carry the marker."""
    process = launched(AT_THE_GATE + "(setsid sleep 600 & echo $! >pid); exit 3")
    ControlGroup(own).add(process.pid)
    gate.write_text("go on\n")
    daemon = written_pid(tmp_path)
    until_it_is(daemon, "sleep")
    assert clean_up_after(process) == 1
    assert not process.ended_in_group
    until(lambda: not is_alive(daemon))


def test_a_group_is_killed_where_the_kernel_has_no_call_for_that(
    own: Path, shell: Shell, marker: Marker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux before 5.14 has no cgroup.kill."""
    leader = shell("setsid sleep 600 & setsid sleep 600 & wait")
    group = create_for(marker.launch, leader.pid)
    assert group is not None
    write = Path.write_text

    def refuse(path: Path, *args: Any, **options: Any) -> int:
        if path.name == "cgroup.kill":
            raise FileNotFoundError(path)
        return write(path, *args, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    kill_stragglers(marker.launch, group, is_all_in_group=True)
    assert leader.wait(10) == -signal.SIGKILL
    assert not group.path.exists()


def test_a_lost_launch_is_found_in_the_group_of_an_earlier_worker(
    own: Path, shell: Shell, marker: Marker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker may have another group of its own, so it looks at every process."""
    leader = shell("setsid env -i sleep 600 & echo $! >pid; wait")
    child = written_pid(tmp_path)
    group = create_for(marker.launch, leader.pid)
    assert group is not None
    leader.kill()
    leader.wait()
    with monkeypatch.context() as patch:
        patch.setattr(control_group, "own_group", lambda: own / "another")
        assert kill_lost(marker.launch, [], marker.node) >= 1
    until(lambda: not is_alive(child))
    until(group.remove)


def test_the_younger_processes_are_those_that_were_started_later(shell: Shell) -> None:
    first, second = shell("exec sleep 600"), shell("exec sleep 600")
    if first.pid > second.pid:
        pytest.skip("the numbers of processes have begun again")
    assert {first.pid, second.pid} <= read_younger(first.pid).keys()
    assert first.pid not in read_younger(second.pid)


def test_younger_processes_may_have_lower_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel begins again at the lowest free number after pid_max."""
    monkeypatch.setattr(process_table, "read_stat", lambda pid: ALIVE)
    monkeypatch.setattr(os, "listdir", lambda path: ["1", "300", "301", "32000", "32767", "self"])
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"0.1 0.1 0.1 1/99 300\n")
    assert read_younger(32000).keys() == {1, 300, 32000, 32767}
    assert read_younger(1).keys() == {1, 300}


ALIVE = process_table.ProcessStat("S", 1, 1)


def test_only_the_marker_of_the_leader_is_read_where_it_is_there(
    shell: Shell, marker: Marker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adoption of a hundred backends should not read every process a hundred times."""
    leader = shell("exec sleep 600")
    until_it_is(leader.pid, "sleep")
    with monkeypatch.context() as patch:
        patch.setattr(adoption, "marked_processes", lambda: pytest.fail("all were read"))
        assert adoption.other_node_of(leader.pid, marker.node) is None
