from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import (
    Process,
    reset_ignored_signals,
    spawn,
)
from instances.supervisor.process.process_table import read_stat
from tests.instances.supervisor.conftest import children, is_alive
from tests.support.until import until

MARKER = Marker(node="/nowhere/node-test.lock", instance="1:one", launch="test-process")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def shell(script: str, log: int, **environment: str) -> Process:
    return spawn(
        ["/bin/sh", "-c", script],
        environment={"PATH": os.environ["PATH"], **environment},
        marker=MARKER,
        directory=Path("/"),
        log=log,
    )


def output(log: int) -> str:
    return os.pread(log, 10_000, 0).decode()


def end(process: Process) -> int | None:
    until(process.has_exited)
    return process.reap()


def test_a_process_has_its_own_session_and_a_clean_environment(log: int) -> None:
    environment = {"A": "b", "LLAMACTL_LAUNCH": "forged", "LLAMACTL_CONTAINER": "forged"}
    script = "umask; pwd; env; ps -o sid= -p $$; read line || echo no input"
    process = shell(script, log, **environment)
    assert end(process) == 0
    text = output(log)
    assert text.startswith("0077\n/\n")
    assert text.endswith("no input\n")
    assert str(process.pid) in text.split()
    assert {"A=b", "LLAMACTL_LAUNCH=test-process", "LLAMACTL_INSTANCE=1:one"} <= set(text.split())
    assert "LLAMACTL_CONTAINER" not in text
    assert "DJANGO_SETTINGS_MODULE" not in text


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -SEGV $$", -signal.SIGSEGV)])
def test_the_exit_code_says_how_it_ended(log: int, script: str, code: int) -> None:
    process = shell(script, log)
    assert end(process) == code
    assert process.pid not in children()


def test_a_signal_reaches_the_whole_group(log: int) -> None:
    process = shell("sleep 60 & echo $!; wait", log)
    child = int(until(lambda: output(log)))
    process.signal_group(signal.SIGTERM)
    assert end(process) == -signal.SIGTERM
    until(lambda: not is_alive(child))


def test_what_a_leader_leaves_behind_is_killed_when_it_is_reaped(log: int) -> None:
    process = shell("sleep 60 & echo $!; exit 3", log)
    until(process.has_exited)
    child = int(output(log))
    assert is_alive(child)
    assert process.reap() == 3
    until(lambda: not is_alive(child))


def test_signals_go_by_number_where_the_kernel_is_old(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "flags")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    process = shell("sleep 60 & echo $!; exit 3", log)
    until(process.has_exited)
    child = int(output(log))
    assert process.reap() == 3
    until(lambda: not is_alive(child))


def test_a_number_that_may_be_another_process_is_not_signalled(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = shell("exit 0", log)
    until(process.has_exited)
    os.waitpid(process.pid, 0)  # its parent, as an adopted process has one, has waited for it

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "flags")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("signalled by number"))
    assert process.reap() is None


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["/nowhere/program"], FileNotFoundError),
        (["/etc/passwd"], PermissionError),
        (["/bin/sh", "x" * 200_000], OSError),
        (["/bin/sh", "a\0b"], ValueError),
    ],
)
def test_a_spawn_that_fails_leaves_nothing(
    log: int, argv: list[str], error: type[Exception]
) -> None:
    before = children(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        spawn(argv, environment={}, marker=MARKER, directory=Path("/"), log=log)
    assert (children(), len(os.listdir("/proc/self/fd"))) == before


def test_a_process_that_can_not_be_watched_is_ended(
    log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    before = children()
    with pytest.raises(OSError, match="too many"):
        shell("sleep 60", log)
    assert children() == before


def test_ignored_signals_are_not_ignored_by_a_child(log: int) -> None:
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        for number in old:
            signal.signal(number, signal.SIG_IGN)
        reset_ignored_signals()
        process = shell("kill -INT $$; echo it was ignored", log)
        assert end(process) == -signal.SIGINT
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def test_a_signal_that_the_thread_blocks_is_not_blocked_in_a_child(log: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = shell("kill -TERM $$; echo it was blocked", log)
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    assert end(process) == -signal.SIGTERM


def test_only_the_log_is_inherited(log: int) -> None:
    os.set_inheritable(log, True)
    process = shell("ls /proc/self/fd", log)
    end(process)
    assert output(log).split() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_a_program_name_with_brackets_and_blanks_is_read_over(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to(sys.executable)
    process = subprocess.Popen([program, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        stat = read_stat(process.pid)
        assert stat is not None
        assert stat.is_alive
        assert stat.session == os.getsid(0)
        assert stat.started_ticks > 0
    finally:
        process.communicate(b"\n")


def test_an_unused_pid_has_no_stat() -> None:
    assert read_stat(2**22 + 1) is None  # above the highest pid that Linux gives
