"""Cutting a log loses nothing, whoever writes and whatever fails."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from instances.logs import truncate
from instances.logs.segments import held_still, parts_of, unfinished_path
from instances.logs.truncate import cut, finish
from instances.supervisor.standstill import stopped
from tests.support.logs import all_lines, numbers, rotate_while_it_writes, start_writer

Standstill = Callable[[], AbstractContextManager[None]]


@contextmanager
def nobody_writes() -> Iterator[None]:
    yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.log"


@pytest.fixture(params=["collapse", "standstill"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: that of the file system, and that of those that can't."""
    if request.param == "standstill":
        monkeypatch.setattr(truncate, "_collapse", lambda log, length: False)
    return str(request.param)


def lines(count: int) -> bytes:
    return b"".join(b"line %09d\n" % number for number in range(count))


def test_a_log_that_is_written_at_full_speed_loses_no_line(path: Path, way: str) -> None:
    process = start_writer(path)

    def rotate() -> bool:
        is_large = path.stat().st_size > 1024 * 1024
        if is_large:
            cut(path, partial(stopped, process))
        return is_large

    rotate_while_it_writes(process, rotate, seconds=2)
    assert process.bury() == 0
    found = numbers(all_lines(path))
    assert len(found) > 10_000
    assert found == list(range(len(found)))


def test_a_line_that_is_being_written_stays_in_one_file(path: Path, way: str) -> None:
    path.write_bytes(lines(10_000) + b"not yet finis")
    cut(path, nobody_writes)
    with path.open("ab") as log:
        log.write(b"hed\n")
    assert parts_of(path)[0].path.read_bytes().endswith(b"\n")
    assert all_lines(path)[-1] == b"not yet finished"
    assert path.stat().st_size < 10_000


def test_a_log_without_line_ends_is_cut_all_the_same(path: Path, way: str) -> None:
    content = os.urandom(3_000_000).replace(b"\n", b"x")
    path.write_bytes(content)
    part = cut(path, nobody_writes)
    assert part is not None
    assert part.path.read_bytes() + path.read_bytes() == content
    assert path.stat().st_size <= 4096


def test_what_is_shorter_than_a_block_stays(path: Path) -> None:
    path.write_bytes(b"line\n" * 10)
    assert cut(path, nobody_writes) is None
    assert os.listdir(path.parent) == ["one.log"]


def test_parts_are_private_and_numbered_on(path: Path, way: str) -> None:
    for _ in range(3):
        with path.open("ab") as log:
            log.write(lines(1000))
        cut(path, nobody_writes)
    assert [part.path.name for part in parts_of(path)] == ["one.log.1", "one.log.2", "one.log.3"]
    assert {stat.S_IMODE(part.path.stat().st_mode) for part in parts_of(path)} == {0o600}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_leaves_the_log_as_it_was(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path.write_bytes(lines(10_000))

    def fail(*arguments: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        cut(path, nobody_writes)
    assert path.read_bytes() == lines(10_000)
    assert os.listdir(path.parent) == ["one.log"]


def test_a_disk_that_is_nearly_full_is_not_filled(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(lines(10_000))
    monkeypatch.setattr(truncate, "RESERVE_BYTES", 2**60)
    with pytest.raises(OSError, match="would fill the disk"):
        cut(path, nobody_writes)
    assert path.read_bytes() == lines(10_000)
    assert os.listdir(path.parent) == ["one.log"]


def test_writers_that_do_not_stop_keep_their_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(lines(10_000))
    monkeypatch.setattr(truncate, "_collapse", lambda log, length: False)

    @contextmanager
    def never() -> Iterator[None]:
        raise OSError("it did not stop")
        yield

    with pytest.raises(OSError, match="it did not stop"):
        cut(path, never)
    assert path.read_bytes() == lines(10_000)
    assert os.listdir(path.parent) == ["one.log"]


def test_a_log_that_is_being_read_is_not_cut_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.logs.segments.LOCK_SECONDS", 0.05)
    path.write_bytes(lines(10_000))
    with held_still(path), pytest.raises(OSError, match="being read"):
        cut(path, nobody_writes)
    assert path.read_bytes() == lines(10_000)
    assert cut(path, nobody_writes) is not None


class Killed(BaseException):
    """Stands for a SIGKILL at this point."""


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_worker_killed_while_cutting_loses_and_doubles_nothing(path: Path, is_cut: bool) -> None:
    content = lines(10_000)
    path.write_bytes(content[81_920:] if is_cut else content)
    unfinished_path(path).write_bytes(content[:81_920])
    finish(path)
    assert not unfinished_path(path).exists()
    assert all_lines(path) == content.splitlines() if not is_cut else True
    texts = [part.path.read_bytes() for part in parts_of(path)] + [path.read_bytes()]
    assert b"".join(texts) == content
    finish(path)
    assert [part.path.read_bytes() for part in parts_of(path)] + [path.read_bytes()] == texts
