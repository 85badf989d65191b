from __future__ import annotations

import gzip
import os
from functools import partial
from pathlib import Path

import pytest

from instances.logs.files import tail
from instances.logs.reader import BEFORE_THE_FIRST, LogReader, Position, position_of_last, start_of
from instances.logs.segments import segment_path, segments_of
from instances.logs.truncate import rotate
from instances.supervisor.log_rotation import prune
from tests.support.logs import numbers, rotate_while_it_writes, start_writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.log"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as log:
        log.write(content)


def lines(first: int, count: int) -> bytes:
    return b"".join(b"line %09d\n" % number for number in range(first, first + count))


def rest(reader: LogReader, limit: int = 10_000) -> bytes:
    return b"".join(iter(partial(reader.read, limit), b""))


def test_what_is_written_is_read_once_across_rotations(path: Path) -> None:
    reader = LogReader(path, BEFORE_THE_FIRST)
    assert reader.read(100) == b""
    found = b""
    for turn in range(6):
        append(path, lines(turn * 2000, 2000))
        if turn % 2:
            found += rest(reader)
        if turn % 3:
            rotate(path)
    found += rest(reader)
    assert found == lines(0, 12_000)
    assert rest(reader) == b""


def test_a_reader_keeps_up_with_a_writer_and_rotations(path: Path) -> None:
    process = start_writer(path, pause=0.002)
    reader = LogReader(path, BEFORE_THE_FIRST)
    found = []

    def read_and_rotate() -> bool:
        found.append(rest(reader))
        is_large = path.stat().st_size > 200_000
        if is_large:
            rotate(path)
        return is_large

    rotate_while_it_writes(process, read_and_rotate, seconds=2)
    process.reap()
    found.append(rest(reader))
    read = numbers(b"".join(found).splitlines())
    assert len(read) > 1000
    assert read == list(range(len(read)))


@pytest.mark.parametrize("compress", [False, True])
def test_a_reader_that_comes_back_goes_on_where_it_was(path: Path, compress: bool) -> None:
    append(path, lines(0, 5000))
    reader = LogReader(path, BEFORE_THE_FIRST)
    found = reader.read(1000)
    text = str(reader.position)
    for turn in range(1, 4):
        rotate(path)
        append(path, lines(turn * 5000, 5000))
    prune(path, backups=9, compress=compress)
    assert [part.is_compressed for part in segments_of(path)] == [compress, compress, False]
    position = Position.from_text(text)
    assert position is not None
    assert found + rest(LogReader(path, position)) == lines(0, 20_000)


def test_deleted_lines_are_skipped(path: Path) -> None:
    append(path, lines(0, 5000))
    reader = LogReader(path, BEFORE_THE_FIRST)
    found = reader.read(1000)
    for turn in range(1, 4):
        rotate(path)
        append(path, lines(turn * 5000, 5000))
    prune(path, backups=1, compress=False)
    found += rest(reader)
    assert found.startswith(lines(0, 50))
    assert found.endswith(lines(15_000, 5000))


def test_a_damaged_segment_is_skipped(path: Path) -> None:
    append(path, lines(0, 5000))
    rotate(path)
    part = segments_of(path)[0].path
    part.with_name(part.name + ".gz").write_bytes(gzip.compress(part.read_bytes())[:1000])
    part.unlink()
    append(path, b"last\n")
    assert rest(LogReader(path, BEFORE_THE_FIRST)).endswith(b"last\n")


def test_a_log_that_was_deleted_and_begun_anew_is_read_from_its_beginning(path: Path) -> None:
    append(path, lines(0, 100))
    reader = LogReader(path, BEFORE_THE_FIRST)
    rest(reader)
    path.rename(path.with_name("elsewhere"))
    assert rest(reader) == b""
    append(path, lines(0, 200))
    assert rest(reader) == lines(0, 200)


def test_a_log_that_another_program_emptied_is_read_from_its_beginning(path: Path) -> None:
    append(path, lines(0, 100))
    reader = LogReader(path, BEFORE_THE_FIRST)
    rest(reader)
    os.truncate(path, 0)
    append(path, b"new\n")
    assert rest(reader) == b"new\n"


def test_segments_that_another_program_deleted_are_skipped(path: Path) -> None:
    append(path, lines(0, 5000))
    rotate(path)
    reader = LogReader(path, start_of(path)[0])
    rest(reader)
    segments_of(path)[0].path.unlink()
    append(path, b"new\n")
    assert rest(reader) == b"new\n"


@pytest.mark.parametrize(
    "text", ["", "1", "1-2", "1-2-3-4", "x-1-1", "1--1-0", "1-1-" + "9" * 30, "1-1-٣", "1-1-1\n"]
)
def test_any_other_text_is_no_position(text: str) -> None:
    assert Position.from_text(text) is None


@pytest.mark.parametrize(
    "text", ["0-0-0", "ffffffffffffffff-999999999999999999-999999999999999999"]
)
def test_an_impossible_position_is_corrected(path: Path, text: str) -> None:
    append(path, lines(0, 10))
    position = Position.from_text(text)
    assert position is not None
    assert rest(LogReader(path, position)) == lines(0, 10)


@pytest.mark.parametrize("wanted", [0, 1, 2, 2999, 3000, 3001, 5000, 5001, 10_000])
@pytest.mark.parametrize("end", [b"", b"unfinished"])
def test_the_last_lines_are_found_across_segments(path: Path, wanted: int, end: bytes) -> None:
    append(path, lines(0, 2000))
    rotate(path)
    append(path, lines(2000, 3000) + end)
    read = rest(LogReader(path, position_of_last(path, wanted))).decode().splitlines()
    assert read == tail(path, wanted)
    assert len(read) == min(wanted, 5000 + bool(end))


def test_the_last_lines_are_bounded_in_bytes(path: Path) -> None:
    append(path, lines(0, 10_000))
    position = position_of_last(path, 10_000, max_bytes=3000)
    assert position.offset == path.stat().st_size - 3000


def test_names_of_instances_cannot_clash_with_segments(tmp_path: Path) -> None:
    # Each name is an instance's, and its log has segments.
    names = ["a", "a.log", "a.log.1", "a.log.1.gz", "a.1", "a.log.rotating"]
    for name in names:
        path = tmp_path / f"{name}.log"
        path.touch()
        segment_path(path, 1).touch()
    assert len(os.listdir(tmp_path)) == 2 * len(names)
    for name in names:
        found = segments_of(tmp_path / f"{name}.log")
        assert [part.path.name for part in found] == [f"{name}.log.1"]
