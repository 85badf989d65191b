"""Rotation of a log while a backend writes to it, and when it fails."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from instances.logs import segments, truncate
from instances.logs.segments import lock_for_reading, segments_of, unfinished_path
from instances.logs.truncate import recover, rotate
from tests.support.logs import all_lines, numbers, rotate_while_it_writes, start_writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.log"


@pytest.fixture(params=["collapse", "truncate"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems with and without COLLAPSE_RANGE."""
    if request.param == "truncate":
        monkeypatch.setattr(truncate, "_collapse", lambda log, length: False)
    return str(request.param)


def lines(count: int) -> bytes:
    return b"".join(b"line %09d\n" % number for number in range(count))


def all_texts(path: Path) -> list[bytes]:
    return [segment.path.read_bytes() for segment in segments_of(path)] + [path.read_bytes()]


def rotate_at_full_speed(path: Path) -> None:
    """Rotate the log of a process that writes numbered lines as fast as it can."""
    process = start_writer(path)

    def rotate_large() -> bool:
        is_large = path.stat().st_size > 1024 * 1024
        if is_large:
            rotate(path)
        return is_large

    rotate_while_it_writes(process, rotate_large, seconds=2)
    assert process.reap() == 0


def test_a_log_that_is_written_at_full_speed_loses_no_line(path: Path) -> None:
    rotate_at_full_speed(path)
    found = numbers(all_lines(path))
    assert len(found) > 10_000
    assert found == list(range(len(found)))


def test_a_truncated_log_keeps_its_lines_in_order_and_doubles_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncate, "_collapse", lambda log, length: False)
    rotate_at_full_speed(path)
    # Lines written during a truncation may be missing, one at each end of the gap torn.
    texts = [segment.path.read_bytes() for segment in segments_of(path)] + [path.read_bytes()]
    found = [
        int(number) for number in re.findall(rb"^line (\d{9}) ", b"".join(texts), re.MULTILINE)
    ]
    assert len(found) > 10_000
    assert found == sorted(set(found))


def test_a_log_that_is_not_written_to_loses_nothing_by_truncation(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncate, "_collapse", lambda log, length: False)
    path.write_bytes(lines(10_000))
    rotate(path)
    assert all_lines(path) == lines(10_000).splitlines()


def test_a_line_that_is_being_written_stays_in_one_file(path: Path, way: str) -> None:
    path.write_bytes(lines(10_000) + b"not yet finis")
    rotate(path)
    with path.open("ab") as log:
        log.write(b"hed\n")
    assert segments_of(path)[0].path.read_bytes().endswith(b"\n")
    assert all_lines(path)[-1] == b"not yet finished"
    assert path.stat().st_size < 10_000


def test_a_log_without_line_ends_is_rotated_all_the_same(path: Path, way: str) -> None:
    content = os.urandom(3_000_000).replace(b"\n", b"x")
    path.write_bytes(content)
    segment = rotate(path)
    assert segment is not None
    assert segment.path.read_bytes() + path.read_bytes() == content
    assert path.stat().st_size <= 4096


def test_a_log_shorter_than_a_block_is_not_rotated(path: Path) -> None:
    path.write_bytes(b"line\n" * 10)
    assert rotate(path) is None
    assert os.listdir(path.parent) == ["one.log"]


def test_segments_are_private_and_numbered_on(path: Path, way: str) -> None:
    for _ in range(3):
        with path.open("ab") as log:
            log.write(lines(1000))
        rotate(path)
    assert [segment.path.name for segment in segments_of(path)] == [
        "one.log.1",
        "one.log.2",
        "one.log.3",
    ]
    assert {stat.S_IMODE(segment.path.stat().st_mode) for segment in segments_of(path)} == {0o600}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_leaves_the_log_as_it_was(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path.write_bytes(lines(10_000))

    def fail(*arguments: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        rotate(path)
    assert path.read_bytes() == lines(10_000)
    assert os.listdir(path.parent) == ["one.log"]


def test_a_disk_that_is_nearly_full_is_not_filled(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(lines(10_000))
    monkeypatch.setattr(truncate, "RESERVE_BYTES", 2**60)
    with pytest.raises(OSError, match="would fill the disk"):
        rotate(path)
    assert path.read_bytes() == lines(10_000)
    assert os.listdir(path.parent) == ["one.log"]


def test_a_log_is_not_rotated_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LOCK_SECONDS", 0.05)
    path.write_bytes(lines(10_000))
    with lock_for_reading(path), pytest.raises(OSError, match="readers"):
        rotate(path)
    assert path.read_bytes() == lines(10_000)
    assert rotate(path) is not None


class Killed(BaseException):
    """Stands for a SIGKILL at this point."""


@pytest.mark.parametrize("is_truncated", [False, True])
def test_a_worker_killed_during_rotation_loses_and_doubles_nothing(
    path: Path, is_truncated: bool
) -> None:
    content = lines(10_000)
    path.write_bytes(content[81_920:] if is_truncated else content)
    unfinished_path(path).write_bytes(content[:81_920])
    recover(path)
    assert not unfinished_path(path).exists()
    assert all_lines(path) == content.splitlines() if not is_truncated else True
    texts = [segment.path.read_bytes() for segment in segments_of(path)] + [path.read_bytes()]
    assert b"".join(texts) == content
    recover(path)
    assert [segment.path.read_bytes() for segment in segments_of(path)] + [
        path.read_bytes()
    ] == texts
