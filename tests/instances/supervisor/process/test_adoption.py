"""Adoption of the backends of an earlier worker."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from instances.models import Instance
from instances.states import Status
from instances.supervisor.process.adoption import (
    backends_of,
    find_process,
    kill_lost,
    kill_stragglers,
    open_process,
    other_node_of,
)
from instances.supervisor.process.markers import NODE_MARKER, Marker, is_own_user
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import read_stat
from llamactl.config import AppConfig, current
from proxy.table.refresh import to_target
from tests.instances.supervisor.conftest import PROGRAM, NodeUnderTest, children, is_alive
from tests.support.until import until

STARTER = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], start_new_session=True, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid)
child.returncode = 0
"""

Start = Callable[..., int]


@pytest.fixture
def foreign() -> Iterator[Start]:
    """Starts a fake backend as a worker that has ended since would have; returns its pid."""
    pids: list[int] = []

    def start(instance: Instance | None = None, *, marked: bool = True, **knobs: str) -> int:
        owner = f"{instance.pk}:{instance.name}" if instance else "999:gone"
        marker = Marker(
            str(current().data_dir.resolve() / "node-main.lock"), owner, uuid.uuid4().hex
        )
        port = instance.port if instance else current().instances.port_range[1]
        environment = {"PATH": os.environ["PATH"], **knobs}
        if marked:
            environment |= marker.to_environment()
        program = [sys.executable, "-S", "-E", str(PROGRAM), "--port", str(port)]
        done = subprocess.run(
            [sys.executable, "-S", "-c", STARTER, *program],
            env=environment,
            capture_output=True,
            check=True,
        )
        pids.append(int(done.stdout))
        return pids[-1]

    yield start
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def ticks(pid: int) -> int:
    stat = read_stat(pid)
    assert stat is not None
    return stat.started_ticks


def recorded(instance: Instance, pid: int, **columns: object) -> None:
    columns = {"status": "running", "desired_state": "running", "generation": 1} | columns
    Instance.objects.filter(pk=instance.pk).update(
        pid=pid, pid_started_ticks=ticks(pid), observed_generation=1, **columns
    )


def test_a_running_backend_is_taken_over_and_not_touched(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    before = node.running()
    stream = requests.post(
        f"http://127.0.0.1:{before.port}/v1/chat/completions",
        json={"stream": True, "max_tokens": 8, "tps": 20},
        headers={"Authorization": f"Bearer key-{before.pk}", "Connection": "close"},
        stream=True,
        timeout=5,
    )
    with stream:
        node.stop()
        node.start()
        assert stream.text.rstrip().endswith("[DONE]")
    node.ask_stop()  # it is in charge of it again
    node.reaches(Status.STOPPED)
    assert before.pid not in children()
    assert node.history() == ["starting", "running", "shutting_down", "stopped"]


def test_a_backend_that_is_no_child_is_watched_too(
    node: NodeUnderTest, foreign: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    instance = node.create(restart_delay=30)
    pid = foreign(instance)
    recorded(instance, pid)
    node.start()
    until(lambda: f"adopted process {pid}" in caplog.text)
    os.kill(pid, signal.SIGKILL)
    seen = node.reaches(Status.RESTARTING)
    assert seen.failure is not None
    assert seen.failure["exit_code"] is None
    assert seen.restarts == 1


def test_a_backend_that_is_no_child_is_stopped_with_all_its_group(
    node: NodeUnderTest, foreign: Start
) -> None:
    instance = node.create()
    pid = foreign(instance, FAKE_CHILD="group")
    child = int(until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text()))
    recorded(instance, pid, desired_state="stopped")
    node.start()
    node.reaches(Status.STOPPED)
    assert not is_alive(pid)
    until(lambda: not is_alive(child))


def test_an_adopted_start_goes_on(node: NodeUnderTest, foreign: Start) -> None:
    instance = node.create()
    recorded(instance, foreign(instance), status="starting")
    node.start()
    assert node.reaches(Status.RUNNING).ready_at is not None


def test_a_process_without_a_row_is_found_by_its_marker(
    node: NodeUnderTest, foreign: Start
) -> None:
    # The worker was killed between the start and its record.
    instance = node.create()
    pid = foreign(instance)
    Instance.objects.update(
        status="starting", desired_state="running", generation=1, observed_generation=1
    )
    node.start()
    found = node.reaches(Status.RUNNING)
    assert found.pid == pid
    assert found.pid_started_ticks == ticks(pid)


def test_a_backend_of_an_earlier_release_keeps_its_key(
    node: NodeUnderTest, foreign: Start, settings: Any
) -> None:
    """Its launch has an id, and yet the key of its instance."""
    instance = node.create()
    key = hmac.new(
        settings.SECRET_KEY.encode(), f"llamactl backend {instance.pk}".encode(), hashlib.sha256
    )
    pid = foreign(instance, LLAMA_API_KEY=key.hexdigest())
    recorded(instance, pid)
    node.start()
    found = until(lambda: seen if (seen := node.see()).launch_id else None)
    assert found.pid == pid
    assert to_target(found, current()).authorization == f"Bearer {key.hexdigest()}"
    # A restart has a key of its own.
    node.ask_restart()
    found = node.reaches(Status.RUNNING)
    assert found.launch_id.startswith("k2-")
    assert to_target(found, current()).authorization != f"Bearer {key.hexdigest()}"


def test_a_process_that_overwrote_its_markers_is_found_by_its_pid(
    node: NodeUnderTest, foreign: Start
) -> None:
    instance = node.create()
    pid = foreign(instance, marked=False)
    recorded(instance, pid, desired_state="stopped")
    node.start()
    node.reaches(Status.STOPPED)
    assert not is_alive(pid)


def test_a_stop_that_was_under_way_is_finished(node: NodeUnderTest, foreign: Start) -> None:
    instance = node.create()
    pid = foreign(instance)
    recorded(instance, pid, status="shutting_down", desired_state="stopped")
    node.start()
    node.reaches(Status.STOPPED)
    assert not is_alive(pid)


def test_a_shutdown_that_was_cut_short_starts_it_again(node: NodeUnderTest, foreign: Start) -> None:
    instance = node.create()
    pid = foreign(instance)
    recorded(instance, pid, status="shutting_down")
    node.start()
    assert node.reaches(Status.RUNNING).pid != pid
    assert not is_alive(pid)


@pytest.mark.parametrize("status", ["starting", "running", "shutting_down", "restarting"])
def test_a_process_that_ended_without_a_worker_is_started_again(
    node: NodeUnderTest, status: str
) -> None:
    node.create()
    Instance.objects.update(
        status=status,
        desired_state="running",
        generation=1,
        observed_generation=1,
        pid=2**22 + 1,
        pid_started_ticks=1,
        restarts=1,
    )
    node.start()
    until(lambda: node.see().pid in children())
    node.reaches(Status.RUNNING)


@pytest.mark.parametrize("status", ["starting", "running", "shutting_down", "restarting", "failed"])
def test_a_process_that_ended_without_a_worker_and_was_to_stop_is_stopped(
    node: NodeUnderTest, status: str
) -> None:
    node.create()
    Instance.objects.update(status=status, generation=1, observed_generation=1, pid=2**22 + 1)
    node.start()
    assert node.reaches(Status.STOPPED).pid is None


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_a_final_status_survives_the_next_worker(node: NodeUnderTest, status: str) -> None:
    node.create()
    Instance.objects.update(
        status=status, desired_state="running", generation=1, observed_generation=1
    )
    node.start()
    until(lambda: node.see().node.heartbeat_at)
    node.wake()
    node.running("other")
    assert node.see().status == status


def test_a_reused_pid_is_never_signalled(node: NodeUnderTest) -> None:
    instance = node.create()
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        recorded(instance, other.pid, desired_state="stopped")
        Instance.objects.update(pid_started_ticks=ticks(other.pid) - 1)
        node.start()
        node.reaches(Status.STOPPED)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_of_two_processes_the_one_in_the_database_is_kept(
    node: NodeUnderTest, foreign: Start
) -> None:
    instance = node.create()
    extra = foreign(instance, FAKE_BIND_SECONDS="60")
    kept = foreign(instance)
    recorded(instance, kept)
    node.start()
    until(lambda: not is_alive(extra))
    assert is_alive(kept)
    assert node.reaches(Status.RUNNING).pid == kept


def test_of_two_processes_that_the_database_does_not_know_the_older_is_kept(
    node: NodeUnderTest, foreign: Start
) -> None:
    instance = node.create()
    kept, extra = foreign(instance), foreign(instance, FAKE_BIND_SECONDS="60")
    Instance.objects.update(
        status="starting", desired_state="running", generation=1, observed_generation=1
    )
    node.start()
    assert node.reaches(Status.RUNNING).pid == kept
    until(lambda: not is_alive(extra))


def test_an_orphan_is_ended_even_if_it_resists(node: NodeUnderTest, foreign: Start) -> None:
    orphan = foreign(None, FAKE_IGNORE_SIGINT="1", FAKE_IGNORE_SIGTERM="1")
    node.start()
    until(lambda: not is_alive(orphan))


def test_a_process_of_an_instance_that_had_the_name_before_is_an_orphan(
    node: NodeUnderTest, foreign: Start
) -> None:
    old = node.create()
    pid = foreign(old)
    old.delete()
    assert node.create().name == old.name
    node.start()
    until(lambda: not is_alive(pid))


def test_another_installations_backends_are_left_alone(node: NodeUnderTest, foreign: Start) -> None:
    other = subprocess.Popen(
        ["sleep", "60"],
        env=Marker("/elsewhere/node-main.lock", "1:one", "x").to_environment(),
        start_new_session=True,
    )
    orphan = foreign(None)
    try:
        node.start()
        until(lambda: not is_alive(orphan))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


ELSEWHERE = Marker("/elsewhere/node-main.lock", "1:one", "x")


@pytest.fixture
def sleeping() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that leads a session and does nothing, with an environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_backend_of_another_data_directory_is_not_adopted_by_its_row(
    node: NodeUnderTest,
    sleeping: Callable[..., subprocess.Popen[bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A second worker with the same database and another data directory.
    other = sleeping(ELSEWHERE.to_environment())
    recorded(node.create(), other.pid, desired_state="stopped")
    node.start()
    node.reaches(Status.STOPPED)
    assert other.poll() is None
    assert f"process {other.pid} belongs to the worker that locks {ELSEWHERE.node}" in caplog.text


def test_what_another_data_directorys_worker_launched_is_no_rest_of_a_lost_launch(
    sleeping: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """It should live, though the row in the shared database names its launch."""
    other = sleeping(ELSEWHERE.to_environment())
    until(lambda: backends_of(ELSEWHERE.node))
    assert kill_lost(ELSEWHERE.launch, [], "/here/node-main.lock") == 0
    assert other.poll() is None
    assert kill_lost(ELSEWHERE.launch, [], ELSEWHERE.node) >= 1
    assert other.wait(10) == -signal.SIGKILL


def test_a_leader_that_overwrote_its_marker_is_known_by_its_children() -> None:
    # As a server that sets its title does: the children still carry the marker.
    child = f"{NODE_MARKER}=/elsewhere/node-main.lock sleep 60 & wait"
    leader = subprocess.Popen(
        ["sh", "-c", child], env={"PATH": os.environ["PATH"]}, start_new_session=True
    )
    try:
        until(lambda: other_node_of(leader.pid, "/here/node-main.lock"))
        marker = Marker("/here/node-main.lock", "1:one", "")
        assert find_process(leader.pid, ticks(leader.pid), [], marker) is None
        marker = Marker("/elsewhere/node-main.lock", "1:one", "")
        found = find_process(leader.pid, ticks(leader.pid), [], marker)
        assert found is not None
        found.close()
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


def test_a_process_of_another_user_is_not_adopted(
    sleeping: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeping(ELSEWHERE.to_environment())
    until(lambda: backends_of(ELSEWHERE.node))
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert backends_of(ELSEWHERE.node) == []
    assert find_process(process.pid, ticks(process.pid), [], ELSEWHERE) is None
    assert kill_stragglers(ELSEWHERE.launch) == 0


def test_a_setuid_program_of_another_user_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    # Anybody can start su or passwd with forged markers: it runs as root, for another real user.
    monkeypatch.setattr(os, "getuid", lambda: 0)
    uids = "1000\t0\t0\t0"
    monkeypatch.setattr(Path, "read_bytes", lambda path: f"Name:\tsu\nUid:\t{uids}\n".encode())
    assert not is_own_user(4242)
    uids = "0\t0\t0\t0"
    assert is_own_user(4242)


def test_a_second_worker_waits_until_the_first_has_gone(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_backend(keep_backends=True)
    first = node.start()
    pid = node.running().pid
    second = node.start()
    try:
        until(lambda: "waiting for it" in caplog.text)
        first.stop()
        node.ask_restart()
        assert node.reaches(Status.RUNNING).pid != pid
        assert caplog.text.count("waiting for it") == 1
    finally:
        fake_backend()
        node.supervisor = None
        second._config = current()
        second.stop()


def test_a_worker_that_waits_for_the_lock_can_be_stopped(
    node: NodeUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    first = node.start()
    second = node.start()
    until(lambda: "waiting for it" in caplog.text)
    second.stop()
    node.supervisor = first
    node.running()


def test_a_process_that_ends_during_the_scan_is_not_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = subprocess.Popen(["sleep", "60"])
    descriptors = len(os.listdir("/proc/self/fd"))
    started = ticks(child.pid)

    def open_too_late(pid: int) -> int:
        child.kill()
        child.wait()
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(os, "pidfd_open", open_too_late)
    assert open_process(child.pid, started, Marker("", "", "")) is None
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_zombie_is_not_opened() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert open_process(child.pid, ticks(child.pid), Marker("", "", "")) is None
    child.wait()


def test_a_process_that_leads_no_session_is_no_backend() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        found: Process | None = find_process(child.pid, ticks(child.pid), [], Marker("", "", ""))
        assert found is None
    finally:
        child.kill()
        child.wait()
