"""The foreground process group: order, respawn, signals, and a kill of the parent."""

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
from llamactl.server import liveness, process_group
from llamactl.server.child import CannotStart, ProcessSpec
from llamactl.server.process_group import ProcessGroup, Stopped
from llamactl.server.respawn_policy import RespawnPolicy
from tests.support.paths import ROOT

# The group's own process has one thread; the test runner's has more, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

STAND_IN = ROOT / "tests" / "support" / "stand_in_service.py"
DEADLINE_SECONDS = 10.0


class Stage:
    """A directory with the events of stand-in services, and the lines that the group printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.printed: list[str] = []

    def spec(self, name: str, *knobs: str, **changes: Any) -> ProcessSpec:
        values: dict[str, Any] = {
            "name": name,
            "argv": [
                *(sys.executable, "-I", "-S", str(STAND_IN)),
                *(str(self.directory), name, *knobs),
            ],
            "is_ready": lambda: self.pid_path(name).exists(),
            "grace_seconds": 10.0,
        }
        return ProcessSpec(**(values | changes))

    def group(
        self, *stages: list[ProcessSpec], policy: RespawnPolicy | None = None, **more: Any
    ) -> ProcessGroup:
        return ProcessGroup(stages, print_line=self.printed.append, respawn_policy=policy, **more)

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
            assert time.monotonic() < deadline, f"still waiting; printed {self.printed}"
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
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # also while it is read
        return False


def expect_stopped(
    group: ProcessGroup, then: Callable[[ProcessGroup], None] = ProcessGroup.watch
) -> Stopped:
    """Run the group until it stops; returns the reason."""

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
    assert [line.partition(" (")[0] for line in stage.printed] == [
        *("a ready", "b ready", "c ready"),
        *("c stopped", "b stopped", "a stopped"),
    ]


def test_a_stage_waits_until_the_stage_before_is_ready(stage: Stage) -> None:
    answers = iter([False, False, False, True])
    seen: list[list[str]] = []

    def is_ready() -> bool:
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


def test_an_exited_process_is_respawned_alone(stage: Stage) -> None:
    policy = RespawnPolicy(first_delay_seconds=0.01)
    with stage.group([stage.spec("a")], [stage.spec("b")], policy=policy) as group:
        group.start()
        untouched, killed = stage.pid("b"), stage.pid("a")
        stage.kill("a")
        stage.watch_until(group, stage.pid_path("a").exists)
        assert stage.pid("a") != killed
        assert stage.pid("b") == untouched
        stage.watch_until(group, lambda: stage.printed[-1].startswith("a ready"))
    assert "a exited (SIGKILL); starting it again in 0.01 s" in stage.printed


def test_a_process_that_exits_again_and_again_stops_the_group_with_its_code(stage: Stage) -> None:
    def keep_killing(group: ProcessGroup) -> None:
        while True:
            stage.watch_until(group, stage.pid_path("b").exists)
            stage.kill("b")
            group.watch(0.02)

    policy = RespawnPolicy(first_delay_seconds=0.01, max_failures=3)
    group = stage.group([stage.spec("a")], [stage.spec("b")], policy=policy)
    stopped = expect_stopped(group, keep_killing)
    assert str(stopped).startswith("b exited (SIGKILL)")
    assert str(stopped).endswith("not starting it again after 3 failures")
    assert stopped.exit_code == 128 + signal.SIGKILL
    assert stage.events.count("start b") == 3
    assert stage.events[-1] == "stop a"


def test_an_exit_before_it_was_ready_stops_the_group_and_shows_the_log(stage: Stage) -> None:
    log_path = stage.directory / "b.log"
    broken = stage.spec("b", "exit=3", log_path=log_path)
    stopped = expect_stopped(stage.group([stage.spec("a")], [broken]))
    assert stopped.exit_code == 3
    assert str(stopped) == (
        f"b exited (exit code 3) before it was ready; the end of {log_path}:\nb says goodbye"
    )
    assert log_path.stat().st_mode & 0o777 == 0o600
    assert stage.events == ["start a", "start b", "stop a"]


def test_an_unrequested_exit_with_code_0_is_a_failure(stage: Stage) -> None:
    assert expect_stopped(stage.group([stage.spec("a", "exit=0")])).exit_code == 1


def test_a_process_that_is_not_ready_in_time_is_killed(stage: Stage) -> None:
    hanging = stage.spec("a", is_ready=lambda: False, ready_seconds=0.2)
    assert "a was not ready after" in str(expect_stopped(stage.group([hanging])))


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "INTERVAL_SECONDS", 0.3)


def beating(stage: Stage, name: str, *knobs: str, **changes: Any) -> ProcessSpec:
    return stage.spec(name, "beating", *knobs, is_ready=None, sends_heartbeat=True, **changes)


def until_hung(stage: Stage, group: ProcessGroup, name: str) -> int:
    """Freeze a process until it is replaced; returns its pid."""
    frozen = stage.pid(name)
    os.kill(frozen, signal.SIGSTOP)
    stage.watch_until(
        group, lambda: any(line.startswith(f"{name} hangs") for line in stage.printed)
    )
    stage.watch_until(group, lambda: stage.pid(name) != frozen)
    stage.watch_until(group, lambda: stage.printed[-1].startswith(f"{name} ready"))
    return frozen


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize("knobs", [(), ("stubborn",)], ids=["obedient", "stubborn"])
def test_a_process_that_hangs_is_killed_and_replaced_alone(
    stage: Stage, knobs: tuple[str, ...]
) -> None:
    policy = RespawnPolicy(first_delay_seconds=0.01)
    hanging = beating(stage, "a", *knobs, hang_grace_seconds=0.1, grace_seconds=0.5)
    specs = [hanging, beating(stage, "b")]
    with stage.group(specs, policy=policy) as group:
        group.start()
        untouched = stage.pid("b")
        frozen = until_hung(stage, group, "a")
        assert not is_alive(frozen)
        assert stage.pid("b") == untouched
    assert "a was killed, because it hung; starting it again in 0.01 s" in stage.printed


@pytest.mark.usefixtures("quick_probes")
def test_a_process_that_wakes_up_within_its_grace_period_stops_in_order(stage: Stage) -> None:
    policy = RespawnPolicy(first_delay_seconds=0.01)
    spec = beating(stage, "a", hang_grace_seconds=30.0)
    with stage.group([spec], policy=policy) as group:
        group.start()
        frozen = stage.pid("a")
        os.kill(frozen, signal.SIGSTOP)
        stage.watch_until(group, lambda: stage.printed[-1].startswith("a hangs"))
        os.kill(frozen, signal.SIGCONT)
        stage.watch_until(group, lambda: stage.pid("a") != frozen)
    assert stage.events[:3] == ["start a", "stop a", "start a"]


@pytest.mark.usefixtures("quick_probes")
def test_without_a_grace_period_a_process_that_hangs_gets_no_sigterm(stage: Stage) -> None:
    policy = RespawnPolicy(first_delay_seconds=0.01)
    spec = beating(stage, "a", hang_grace_seconds=0.0)
    with stage.group([spec], policy=policy) as group:
        group.start()
        until_hung(stage, group, "a")
        assert stage.events == ["start a", "start a"]


@pytest.mark.usefixtures("quick_probes")
def test_a_hang_during_our_own_suspension_does_not_count(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "LATE_SECONDS", 0.1)
    with stage.group([beating(stage, "a")]) as group:
        group.start()
        os.kill(stage.pid("a"), signal.SIGSTOP)
        for _ in range(liveness.MAX_UNANSWERED + 2):
            time.sleep(liveness.INTERVAL_SECONDS + 0.2)  # a starved machine, as seen by the group
            group.watch(0.0)
        assert not any("hangs" in line for line in stage.printed)
        os.kill(stage.pid("a"), signal.SIGCONT)


def test_a_process_is_ready_at_its_first_heartbeat(stage: Stage) -> None:
    silent = stage.spec("a", is_ready=None, sends_heartbeat=True, ready_seconds=0.5)
    assert "a was not ready after" in str(expect_stopped(stage.group([silent])))
    with stage.group([beating(stage, "b")]) as group:
        group.start()
        assert stage.printed[-1].startswith("b ready")


def test_a_missing_program_is_named(stage: Stage) -> None:
    stopped = expect_stopped(stage.group([stage.spec("a", argv=["/nowhere/server"])]))
    assert str(stopped).startswith("a could not be started: ")
    assert "/nowhere/server" in str(stopped)
    assert stopped.exit_code == 1


def test_a_start_without_a_requirement_names_it(stage: Stage) -> None:
    def prepare() -> int:
        raise CannotStart("another broker already runs")

    stopped = expect_stopped(stage.group([stage.spec("a", prepare=prepare)]))
    assert str(stopped) == "a could not be started: another broker already runs"


def test_the_descriptor_of_prepare_lives_as_long_as_the_child(stage: Stage) -> None:
    lock_path = stage.directory / "lock"
    policy = RespawnPolicy(first_delay_seconds=0.01)
    locked = stage.spec("a", prepare=lambda: acquire(lock_path, wait_seconds=5))
    with stage.group([locked], policy=policy) as group:
        group.start()
        with pytest.raises(Locked):
            acquire(lock_path)
        # It should be free for the next child at once.
        stage.kill("a")
        stage.watch_until(group, stage.pid_path("a").exists)
    os.close(acquire(lock_path))


def test_before_stop_is_called_before_sigterm(stage: Stage) -> None:
    heard: list[list[str]] = []
    with stage.group([stage.spec("a", before_stop=lambda: heard.append(stage.events))]) as group:
        group.start()
    assert heard == [["start a"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_processes_in_order(stage: Stage, number: signal.Signals) -> None:
    def send_signal(group: ProcessGroup) -> None:
        os.kill(os.getpid(), number)
        group.watch()

    before = signal.getsignal(number)
    group = stage.group([stage.spec("a")], [stage.spec("b")])
    stopped = expect_stopped(group, send_signal)
    assert str(stopped) == f"{number.name} received"
    assert group.exit_code(stopped) == 0
    assert stage.events[2:] == ["stop b", "stop a"]
    assert signal.getsignal(number) == before


def test_a_signal_during_the_start_stops_the_started_processes(stage: Stage) -> None:
    def send_signal() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    unready = stage.spec("b", is_ready=send_signal)
    group = stage.group([stage.spec("a")], [unready])
    assert group.exit_code(expect_stopped(group)) == 0
    assert stage.events[0] == "start a"
    assert stage.events[-1] == "stop a"


def test_an_error_of_the_caller_stops_all_processes(stage: Stage) -> None:
    def fail() -> None:
        with stage.group([stage.spec("a")]) as group:
            group.start()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert stage.events == ["start a", "stop a"]


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(stage: Stage) -> None:
    stubborn = stage.spec("b", "stubborn", grace_seconds=0.2)
    with stage.group([stage.spec("a")], [stubborn]) as group:
        group.start()
    assert group.killed == ["b"]
    assert stage.events == ["start a", "start b", "stop a"]


def test_a_second_ctrl_c_kills_but_a_repeated_signal_does_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "REPEAT_SECONDS", 1.0)
    second = threading.Timer(1.5, os.kill, [os.getpid(), signal.SIGINT])

    def send_signal(group: ProcessGroup) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        group.watch()

    def echo() -> None:
        # A closing terminal, for example, sends SIGHUP twice.
        os.kill(os.getpid(), signal.SIGINT)
        second.start()

    def send_no_more() -> None:
        # After the end of the group the signal would stop the test runner.
        second.cancel()
        second.join()

    # Both are stubborn: a process that obeys SIGTERM may end before it can be killed.
    stubborn = partial(stage.spec, grace_seconds=DEADLINE_SECONDS)
    group = stage.group(
        [stubborn("a", "stubborn", before_stop=send_no_more)],
        [stubborn("b", "stubborn", before_stop=echo)],
    )
    began = time.monotonic()
    assert group.exit_code(expect_stopped(group, send_signal)) == 130
    assert 1.5 < time.monotonic() - began < DEADLINE_SECONDS
    assert group.killed == ["b", "a"]


def test_a_sighup_ignored_by_nohup_stays_ignored(stage: Stage) -> None:
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
from llamactl.server.child import ProcessSpec
from llamactl.server.process_group import ProcessGroup
directory = Path({str(stage.directory)!r})
def spec(name):
    argv = [sys.executable, "-I", "-S", {str(STAND_IN)!r}, str(directory), name]
    ready = lambda: (directory / f"{{name}}.pid").exists()
    return ProcessSpec(name=name, argv=argv, is_ready=ready, grace_seconds=5)
with ProcessGroup([[spec("a")], [spec("b")]], print_line=lambda line: None) as group:
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
