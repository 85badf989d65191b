"""The foreground group: order, restarts, signals, and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llamactl.core.locks import Locked, acquire
from llamactl.server import process_group
from llamactl.server.process_group import CannotStart, ProcessGroup, ProcessSpec, Stopped
from llamactl.server.respawn_policy import RespawnPolicy

# The group's own process has one thread; the test runner's has more, which Python remarks on.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

STAND_IN = Path(__file__).with_name("stand_in.py")
DEADLINE_SECONDS = 10.0


class Stage:
    """A directory in which stand-ins play, and what they and the group said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []

    def spec(self, name: str, *knobs: str, **changes: Any) -> ProcessSpec:
        values: dict[str, Any] = {
            "name": name,
            "argv": [
                *(sys.executable, "-I", "-S", str(STAND_IN)),
                *(str(self.directory), name, *knobs),
            ],
            "is_ready": lambda started: self.pid_path(name).exists(),
            "grace_seconds": 10.0,
        }
        return ProcessSpec(**(values | changes))

    def group(
        self, *stages: list[ProcessSpec], restarts: RespawnPolicy | None = None, **more: Any
    ) -> ProcessGroup:
        return ProcessGroup(stages, say=self.said.append, restarts=restarts, **more)

    def pid_path(self, name: str) -> Path:
        return self.directory / f"{name}.pid"

    def pid(self, name: str) -> int:
        return int(self.pid_path(name).read_text())

    def kill(self, name: str) -> None:
        pid = self.pid(name)
        self.pid_path(name).unlink()
        os.kill(pid, signal.SIGKILL)

    @property
    def events(self) -> list[str]:
        return (self.directory / "events").read_text().splitlines()

    def watch_until(self, group: ProcessGroup, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not is_done():
            assert time.monotonic() < deadline, f"still waiting; said {self.said}"
            group.watch(0.02)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    leaked = [path.stem for path in tmp_path.glob("*.pid") if is_alive(int(path.read_text()))]
    for name in leaked:
        with suppress(ProcessLookupError):
            os.kill(stage.pid(name), signal.SIGKILL)
    assert leaked == []


def is_alive(pid: int) -> bool:
    """A zombie that nobody reaps is as dead as any."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # also while it is read
        return False


def expect_stopped(
    group: ProcessGroup, then: Callable[[ProcessGroup], None] = ProcessGroup.watch
) -> Stopped:
    """Run the group to its end; why it ended."""

    def run() -> None:
        with group:
            group.start()
            then(group)

    with pytest.raises(Stopped) as stopped:
        run()
    return stopped.value


def test_stages_start_in_order_and_stop_in_the_reverse_order(stage: Stage) -> None:
    with stage.group([stage.spec("a")], [stage.spec("b")], [stage.spec("c")]) as group:
        group.start()
    assert stage.events == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert [line.partition(" (")[0] for line in stage.said] == [
        *("a ready", "b ready", "c ready"),
        *("c stopped", "b stopped", "a stopped"),
    ]


def test_a_stage_waits_until_the_one_before_is_ready(stage: Stage) -> None:
    answers = iter([False, False, False, True])
    seen: list[list[str]] = []

    def is_ready(started: float) -> bool:
        seen.append(stage.events if (stage.directory / "events").exists() else [])
        return next(answers)

    with stage.group([stage.spec("a", is_ready=is_ready)], [stage.spec("b")]) as group:
        group.start()
    assert len(seen) == 4
    assert all("start b" not in events for events in seen)


def test_processes_of_one_stage_stop_together(stage: Stage) -> None:
    with stage.group([stage.spec(f"web {n}") for n in (1, 2)]) as group:
        group.start()
    assert sorted(stage.events) == ["start web 1", "start web 2", "stop web 1", "stop web 2"]


def test_a_process_that_dies_is_started_again_in_place(stage: Stage) -> None:
    restarts = RespawnPolicy(first_delay_seconds=0.01)
    with stage.group([stage.spec("a")], [stage.spec("b")], restarts=restarts) as group:
        group.start()
        untouched, killed = stage.pid("b"), stage.pid("a")
        stage.kill("a")
        stage.watch_until(group, stage.pid_path("a").exists)
        assert stage.pid("a") != killed
        assert stage.pid("b") == untouched
        stage.watch_until(group, lambda: stage.said[-1].startswith("a ready"))
    assert "a ended (SIGKILL); starting it again in 0.01 s" in stage.said


def test_a_process_that_keeps_dying_ends_everything_with_its_code(stage: Stage) -> None:
    def keep_killing(group: ProcessGroup) -> None:
        while True:
            stage.watch_until(group, stage.pid_path("b").exists)
            stage.kill("b")
            group.watch(0.02)

    restarts = RespawnPolicy(first_delay_seconds=0.01, most_deaths=3)
    group = stage.group([stage.spec("a")], [stage.spec("b")], restarts=restarts)
    stopped = expect_stopped(group, keep_killing)
    assert str(stopped).startswith("b ended (SIGKILL)")
    assert str(stopped).endswith("giving up after 3 deaths")
    assert stopped.exit_code == 128 + signal.SIGKILL
    assert stage.events.count("start b") == 3
    assert stage.events[-1] == "stop a"


def test_a_death_before_it_was_ready_ends_everything_and_shows_its_log(stage: Stage) -> None:
    log_path = stage.directory / "b.log"
    broken = stage.spec("b", "exit=3", log_path=log_path)
    stopped = expect_stopped(stage.group([stage.spec("a")], [broken]))
    assert stopped.exit_code == 3
    assert str(stopped) == (
        f"b ended (exit code 3) before it was ready; the end of {log_path}:\nb says goodbye"
    )
    assert log_path.stat().st_mode & 0o777 == 0o600
    assert stage.events == ["start a", "start b", "stop a"]


def test_an_end_with_code_0_is_no_success_when_nobody_asked_for_it(stage: Stage) -> None:
    assert expect_stopped(stage.group([stage.spec("a", "exit=0")])).exit_code == 1


def test_a_process_that_does_not_get_ready_is_killed(stage: Stage) -> None:
    hanging = stage.spec("a", is_ready=lambda started: False, ready_seconds=0.2)
    assert "a was not ready after" in str(expect_stopped(stage.group([hanging])))


def test_a_program_that_is_not_there_is_named(stage: Stage) -> None:
    stopped = expect_stopped(stage.group([stage.spec("a", argv=["/nowhere/server"])]))
    assert str(stopped).startswith("a could not be started: ")
    assert "/nowhere/server" in str(stopped)
    assert stopped.exit_code == 1


def test_a_start_that_lacks_something_says_what(stage: Stage) -> None:
    def prepare() -> int:
        raise CannotStart("another broker already runs")

    stopped = expect_stopped(stage.group([stage.spec("a", prepare=prepare)]))
    assert str(stopped) == "a could not be started: another broker already runs"


def test_what_prepare_returns_lives_with_the_child_alone(stage: Stage) -> None:
    lock_path = stage.directory / "lock"
    restarts = RespawnPolicy(first_delay_seconds=0.01)
    locked = stage.spec("a", prepare=lambda: acquire(lock_path, wait_seconds=5))
    with stage.group([locked], restarts=restarts) as group:
        group.start()
        with pytest.raises(Locked):
            acquire(lock_path)
        # It should be free for the next child at once.
        stage.kill("a")
        stage.watch_until(group, stage.pid_path("a").exists)
    os.close(acquire(lock_path))


def test_a_process_is_retired_before_it_is_told_to_stop(stage: Stage) -> None:
    heard: list[list[str]] = []
    with stage.group([stage.spec("a", retire=lambda: heard.append(stage.events))]) as group:
        group.start()
    assert heard == [["start a"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(stage: Stage, number: signal.Signals) -> None:
    def send_signal(group: ProcessGroup) -> None:
        os.kill(os.getpid(), number)
        group.watch()

    before = signal.getsignal(number)
    stopped = expect_stopped(stage.group([stage.spec("a")], [stage.spec("b")]), send_signal)
    assert str(stopped) == f"{number.name} received"
    assert stopped.exit_code == 128 + number
    assert stage.events[2:] == ["stop b", "stop a"]
    assert signal.getsignal(number) == before


def test_a_signal_during_the_start_stops_what_has_been_started(stage: Stage) -> None:
    def send_signal(started: float) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    unready = stage.spec("b", is_ready=send_signal)
    assert expect_stopped(stage.group([stage.spec("a")], [unready])).exit_code == 130
    assert stage.events[0] == "start a"
    assert stage.events[-1] == "stop a"


def test_an_error_of_the_caller_stops_everything_too(stage: Stage) -> None:
    def fail() -> None:
        with stage.group([stage.spec("a")]) as group:
            group.start()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert stage.events == ["start a", "stop a"]


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(stage: Stage) -> None:
    stubborn = stage.spec("b", "stubborn", grace_seconds=0.2)
    with stage.group([stage.spec("a")], [stubborn]) as group:
        group.start()
    assert group.killed == ["b"]
    assert stage.events == ["start a", "start b", "stop a"]


def test_a_second_ctrl_c_kills_but_its_echo_does_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "REPEAT_SECONDS", 1.0)
    second = threading.Timer(1.5, os.kill, [os.getpid(), signal.SIGINT])

    def send_signal(group: ProcessGroup) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        group.watch()

    def echo() -> None:
        # A closing terminal, for one, says SIGHUP twice; that is one wish.
        os.kill(os.getpid(), signal.SIGINT)
        second.start()

    def send_no_more() -> None:
        # Behind the group's end it would stop the test runner.
        second.cancel()
        second.join()

    # Both: one that heeds SIGTERM may be gone before it can be killed.
    stubborn = partial(stage.spec, grace_seconds=DEADLINE_SECONDS)
    group = stage.group(
        [stubborn("a", "stubborn", retire=send_no_more)], [stubborn("b", "stubborn", retire=echo)]
    )
    began = time.monotonic()
    expect_stopped(group, send_signal)
    assert 1.5 < time.monotonic() - began < DEADLINE_SECONDS
    assert group.killed == ["b", "a"]


def test_nohup_is_respected(stage: Stage) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stage.group([stage.spec("a")]) as group:
            group.start()
            os.kill(os.getpid(), signal.SIGHUP)
            group.watch(0.05)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_child_does_not_get_the_terminals_ctrl_c(stage: Stage) -> None:
    with stage.group([stage.spec("a")]) as group:
        group.start()
        assert os.getsid(stage.pid("a")) == stage.pid("a") != os.getsid(0)


def test_kill_9_of_the_parent_leaves_no_child(stage: Stage) -> None:
    program = f"""
import sys
from pathlib import Path
from llamactl.server.process_group import ProcessGroup, ProcessSpec
directory = Path({str(stage.directory)!r})
def spec(name):
    argv = [sys.executable, "-I", "-S", {str(STAND_IN)!r}, str(directory), name]
    ready = lambda started: (directory / f"{{name}}.pid").exists()
    return ProcessSpec(name=name, argv=argv, is_ready=ready, grace_seconds=5)
with ProcessGroup([[spec("a")], [spec("b")]], say=lambda line: None) as group:
    group.start()
    print("ready", flush=True)
    group.watch()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(is_alive(stage.pid(name)) for name in "ab"):
        assert time.monotonic() < deadline, "a child outlived its killed parent"
        time.sleep(0.01)
    assert sorted(stage.events[2:]) == ["stop a", "stop b"]
