"""Processes of a launch that have left its session, its parent and its environment.

vLLM's engine processes overwrite their environment (setproctitle). A child that has forked twice
belongs to init. Both hold memory and perhaps the port, so they end with their launch.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from instances import lifecycle
from instances.states import Status
from instances.supervisor.process import control_group
from llamactl.config import AppConfig, current
from tests.instances.supervisor.conftest import NodeUnderTest, is_alive
from tests.support.until import until


@pytest.fixture(params=["group", "no group"])
def has_group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether llamactl may make control groups: it may not as a user without delegation."""
    if request.param == "no group":
        monkeypatch.setattr(control_group, "own_group", lambda: None)
        return False
    own = control_group.own_group()
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("no control group may be made here")
    return True


@pytest.fixture
def kind(has_group: bool) -> str:
    """A child that has forked twice is known by its group; any other one by its parent too."""
    return "daemon" if has_group else "wiped"


@pytest.fixture(autouse=True)
def no_daemon_left(node: NodeUnderTest) -> Iterator[None]:
    """A child that the supervisor did not see yet, or that a failed test leaves."""
    yield
    with suppress(FileNotFoundError):
        for pid in re.findall(r"^daemon (\d+)$", node.log(), re.MULTILINE):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def daemons_of(node: NodeUnderTest, count: int = 1) -> list[int]:
    """Return the pids of the children that the backends of ``one`` have started so far."""

    def found() -> list[int]:
        with suppress(FileNotFoundError):  # not started yet
            return [int(pid) for pid in re.findall(r"^daemon (\d+)$", node.log(), re.MULTILINE)]
        return []

    return until(lambda: pids if len(pids := found()) >= count else None)


def noted(pid: int, *, has_group: bool) -> None:
    """Wait until the supervisor has seen the child, where it has to."""
    if not has_group:
        orders = current().data_dir.resolve() / "node-main.guard"
        until(lambda: f"\n{pid} " in orders.read_text())


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the same user that no launch has started."""
    process = subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
    yield process.pid
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_stop_ends_them(
    supervised: NodeUnderTest, kind: str, has_group: bool, bystander: int
) -> None:
    supervised.running(FAKE_CHILD=kind)
    (daemon,) = daemons_of(supervised)
    noted(daemon, has_group=has_group)
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    until(lambda: not is_alive(daemon))


def test_a_restart_ends_them(supervised: NodeUnderTest, kind: str, has_group: bool) -> None:
    supervised.running(FAKE_CHILD=kind)
    (daemon,) = daemons_of(supervised)
    noted(daemon, has_group=has_group)
    supervised.ask_restart()
    supervised.reaches(Status.RUNNING)
    assert not is_alive(daemon)
    assert is_alive(daemons_of(supervised, 2)[1])


def test_a_crash_of_their_parent_ends_them(
    supervised: NodeUnderTest, kind: str, has_group: bool
) -> None:
    pid = supervised.running(FAKE_CHILD=kind, auto_restart=False).pid
    (daemon,) = daemons_of(supervised)
    noted(daemon, has_group=has_group)
    os.kill(pid or 0, signal.SIGKILL)
    supervised.reaches(Status.FAILED)
    until(lambda: not is_alive(daemon))


def test_a_failed_start_ends_them(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], kind: str, has_group: bool
) -> None:
    fake_backend(start_timeout=4)
    node.start()
    node.create(FAKE_CHILD=kind, FAKE_NEVER_HEALTHY="1")
    node.ask_start()
    (daemon,) = daemons_of(node)
    noted(daemon, has_group=has_group)
    node.reaches(Status.FAILED)
    until(lambda: not is_alive(daemon))


def test_the_next_worker_leaves_the_children_of_an_adopted_backend_alone(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """A child that leads a session of its own carries the marker of the launch."""
    fake_backend(keep_backends=True)
    node.start()
    first = node.running(FAKE_CHILD="session")
    child = children_of(first.pid or 0)
    node.stop()
    node.start()
    node.create("two")
    node.ask_start("two")
    node.reaches(Status.RUNNING, "two")
    assert children_of(first.pid or 0) == child
    assert "belongs to no instance" not in caplog.text
    for name in ("one", "two"):
        node.ask_stop(name)
        node.reaches(Status.STOPPED, name)


def children_of(pid: int) -> list[int]:
    return [each.pid for each in psutil.Process(pid).children()]


@pytest.mark.parametrize("end", ["stop", "crash without a worker"])
def test_the_next_worker_ends_them(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    kind: str,
    has_group: bool,
    end: str,
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    pid = node.running(FAKE_CHILD=kind).pid or 0
    (daemon,) = daemons_of(node)
    noted(daemon, has_group=has_group)
    node.stop()
    assert is_alive(daemon)
    if end != "stop":
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lifecycle.request_stop("one", cause="test")
    node.start()
    node.ask_stop()
    node.reaches(Status.STOPPED)
    until(lambda: not is_alive(daemon))


def test_a_restart_waits_for_the_port_that_one_of_them_holds(supervised: NodeUnderTest) -> None:
    first = supervised.running(FAKE_CHILD="listener", restart_delay=0)
    (daemon,) = daemons_of(supervised)
    os.kill(first.pid or 0, signal.SIGKILL)
    until(lambda: supervised.see().restarts == 1)
    second = supervised.reaches(Status.RUNNING)
    assert second.port == first.port
    assert not is_alive(daemon)
    assert "is used by another program" not in supervised.log()


def test_the_group_of_a_launch_ends_with_it(supervised: NodeUnderTest) -> None:
    own = control_group.own_group()
    launch = supervised.running().launch_id
    group = control_group.own_group_of(launch)
    if own is None or not os.access(own, os.W_OK):
        assert group is None
        return
    assert group is not None
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    until(lambda: not group.path.exists())
