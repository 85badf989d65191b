"""Rotation of the logs of running backends."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from instances.logs import files
from instances.logs.segments import segments_of
from instances.logs.truncate import MIB, rotate
from instances.states import Status
from instances.supervisor import log_rotation
from instances.supervisor.log_rotation import LogRotation, prune
from llamactl.config import AppConfig, current
from tests.instances.supervisor.conftest import NodeUnderTest, is_alive
from tests.support.logs import all_lines, numbers, rotate_while_it_writes, start_writer
from tests.support.until import until

LINE = b"a line of a log\n"


@pytest.fixture
def limits(config: AppConfig, tmp_path: Path) -> Callable[..., AppConfig]:
    """The config with its logs in a directory of the test's own, rotated from 1 MiB on."""

    def change(**values: object) -> AppConfig:
        update = {"logs_dir": tmp_path, "log_rotation_max_size": 1} | values
        instances = config.instances.model_copy(update=update)
        return config.model_copy(update={"instances": instances})

    return change


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.log"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def at_once(work: Callable[[], Any], then: Callable[[Any], None], *, on_error: Any) -> None:
    then(work())


def append(path: Path, size: int) -> None:
    with path.open("ab") as log:
        log.write(LINE * (size // len(LINE)))


def check(log_rotation: LogRotation) -> None:
    log_rotation.step(log_rotation.due, ["one"])


def test_only_a_log_that_is_too_large_is_rotated(
    limits: Callable[..., AppConfig], path: Path
) -> None:
    log_rotation = LogRotation(limits(), at_once, Clock())
    append(path, MIB // 2)
    check(log_rotation)
    assert segments_of(path) == []
    append(path, MIB)
    check(log_rotation)
    assert len(segments_of(path)) == 1
    assert path.stat().st_size < MIB // 2


def test_rotation_can_be_switched_off(limits: Callable[..., AppConfig], path: Path) -> None:
    log_rotation = LogRotation(limits(log_rotation_enabled=False), at_once, Clock())
    append(path, 2 * MIB)
    log_rotation.step(1e9, ["one"])
    assert segments_of(path) == []


def test_logs_are_checked_every_few_seconds_and_never_twice_at_once(
    limits: Callable[..., AppConfig],
) -> None:
    clock = Clock()
    calls: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
    log_rotation = LogRotation(
        limits(), lambda work, then, on_error: calls.append((work, then)), clock
    )
    for _ in range(3):
        log_rotation.step(clock.now, ["one"])
    assert len(calls) == 1
    work, then = calls.pop()
    then(work())
    log_rotation.step(clock.now, ["one"])
    assert not calls
    clock.now = log_rotation.due
    assert log_rotation.due > 1000.5
    log_rotation.step(clock.now, ["one"])
    assert len(calls) == 1
    calls[0][0]()


def test_the_newest_segments_are_kept_and_the_older_of_them_compressed(
    limits: Callable[..., AppConfig], path: Path
) -> None:
    log_rotation = LogRotation(
        limits(log_rotation_backups=3, log_rotation_compress=True), at_once, Clock()
    )
    for _ in range(5):
        append(path, 2 * MIB)
        check(log_rotation)
    assert [segment.path.name for segment in segments_of(path)] == [
        "one.log.3.gz",
        "one.log.4.gz",
        "one.log.5",
    ]
    assert {stat.S_IMODE(segment.path.stat().st_mode) for segment in segments_of(path)} == {0o600}
    text = gzip.decompress(segments_of(path)[0].path.read_bytes())
    assert set(text.splitlines(keepends=True)[1:]) == {LINE}
    assert segments_of(path)[0].size() == len(text)


def test_an_aborted_compression_is_done_later(path: Path) -> None:
    for _ in range(2):
        append(path, 2 * MIB)
        rotate(path)
    answers = iter([False, False, True, True, True])
    prune(path, backups=3, compress=True, is_aborted=lambda: next(answers))
    assert [segment.is_compressed for segment in segments_of(path)] == [False, False]
    assert len(os.listdir(path.parent)) == 3
    prune(path, backups=3, compress=True)
    assert [segment.is_compressed for segment in segments_of(path)] == [True, False]


def test_a_full_disk_is_logged_once_and_tried_again_later(
    limits: Callable[..., AppConfig],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log_rotation = LogRotation(limits(), at_once, clock)
    append(path, 2 * MIB)
    before = path.read_bytes()
    tries = []

    def full(*arguments: int) -> int:
        tries.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "sendfile", full)
        for _ in range(100):
            clock.now += 2
            check(log_rotation)
    assert 1 < len(tries) < 6
    assert caplog.text.count("can't be rotated") == 1
    assert path.read_bytes() == before
    clock.now += 60
    check(log_rotation)
    assert len(segments_of(path)) == 1


def test_a_log_that_grows_faster_than_it_is_checked_keeps_every_line(
    limits: Callable[..., AppConfig], path: Path
) -> None:
    writer = start_writer(path)
    log_rotation = LogRotation(limits(log_rotation_backups=1000), at_once, Clock())

    def rotate() -> bool:
        before = len(segments_of(path))
        check(log_rotation)
        return len(segments_of(path)) > before

    rotate_while_it_writes(writer, rotate, seconds=1.5)
    writer.reap()
    found = numbers(all_lines(path))
    assert found == list(range(len(found)))


def test_the_last_lines_of_a_failure_are_found_in_the_newest_segment_too(path: Path) -> None:
    descriptor = files.open_log(path, create_directory=False)
    os.write(descriptor, b"error of long ago\n" * 1000)
    files.write_started(descriptor, "one", datetime(2026, 1, 2, tzinfo=UTC))
    os.write(descriptor, b"".join(b"line %d\n" % number for number in range(3)))
    os.write(descriptor, b"error: " + b"x" * 5000 + b"\n")
    rotate(path)
    os.write(descriptor, b"last\n")
    os.close(descriptor)
    found = files.tail_of_launch(path, "one", 20, max_bytes=256 * 1024)
    assert found == ["line 0", "line 1", "line 2", "error: " + "x" * 5000, "last"]


def test_the_log_of_a_running_backend_is_rotated(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_rotation, "CHECK_SECONDS", 0.01)
    fake_backend(log_rotation_max_size=1)
    node.start()
    instance = node.running(FAKE_LOG_LINES="200000")
    path = files.log_path(current(), "one")
    until(lambda: segments_of(path))
    assert requests.get(f"http://127.0.0.1:{instance.port}/health", timeout=5).status_code == 200
    assert is_alive(instance.pid or 0)
    last = ["line 199999", f"main: server is listening on http://127.0.0.1:{instance.port}"]
    assert files.tail(path, 2) == last
    assert len(files.tail(path, 1000)) == 1000


def test_adoption_continues_a_backend_that_was_left_stopped(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    instance = node.running()
    node.stop()
    # An earlier release stopped a backend during a rotation; its worker may be killed then.
    os.kill(instance.pid or 0, signal.SIGSTOP)
    node.start()
    url = f"http://127.0.0.1:{instance.port}/health"
    assert requests.get(url, timeout=10).status_code == 200
    assert node.see().pid == instance.pid
    node.ask_stop()
    node.reaches(Status.STOPPED)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_start_goes_on_without_its_heading_on_a_full_disk(
    supervised: NodeUnderTest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "write_started", full)
    monkeypatch.setattr(files, "write_stopped", full)
    supervised.running()
    assert f"the log can't be written to: [Errno {number}]" in caplog.text
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)


def test_a_failure_names_a_log_that_cannot_be_opened(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "open_log", full)
    supervised.create()
    supervised.ask_start()
    failure = supervised.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["reason"] == "log_unwritable"
    assert "one.log can't be written (No space left on device)" in failure["details"]
