"""Lines of a growing log: where they end, when they are returned, where reading resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from instances.logs.lines import CUT_MARK, LineReader
from instances.logs.reader import BEFORE_THE_FIRST, LogReader, Position
from instances.logs.truncate import rotate
from nodes.agent import LogLine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.log"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as log:
        log.write(content)


def read_all(reader: LineReader) -> list[LogLine]:
    lines = [line for lines in iter(reader.read_lines, []) for line in lines]
    assert not any("\r" in line.text for line in lines)
    return lines


class GrowingLog:
    """A log with a stepped clock, read by one ``LineReader``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.reader = LineReader(LogReader(path, BEFORE_THE_FIRST), clock=lambda: self.now)

    def lines_after(self, content: bytes, *, seconds: float = 0.0) -> list[str]:
        append(self.path, content)
        self.now += seconds
        return [line.text for line in read_all(self.reader)]


@pytest.fixture
def log(path: Path) -> GrowingLog:
    return GrowingLog(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n\nx\n", ["", "", "x"]),
        (b"10%\r20%\r30%\n", ["10%", "20%", "30%"]),
        (b"data: x\nid: 7\nevent: y\n: z\n", ["data: x", "id: 7", "event: y", ": z"]),
        (b"\xff\xfe broken\n", ["\ufffd\ufffd broken"]),
        (b"nul \x00 byte\n", ["nul \ufffd byte"]),
        ("grün \u2028 \u0085\n".encode(), ["grün \u2028 \u0085"]),
        (b" indented \n", [" indented "]),
    ],
)
def test_text_is_split_at_line_ends(log: GrowingLog, content: bytes, expected: list[str]) -> None:
    assert log.lines_after(content) == expected


def test_unfinished_line_is_returned_after_a_second_and_its_rest_later(log: GrowingLog) -> None:
    assert log.lines_after(b"loading ..") == []
    assert log.lines_after(b"..", seconds=0.5) == []
    assert log.lines_after(b"", seconds=0.5) == ["loading ...."]
    assert log.lines_after(b". done", seconds=0.1) == []
    assert log.lines_after(b"\nnext\n") == [". done", "next"]


def test_end_of_a_returned_line_makes_no_line(log: GrowingLog) -> None:
    log.lines_after(b"ready")
    assert log.lines_after(b"", seconds=1) == ["ready"]
    assert log.lines_after(b"\nnext\n") == ["next"]
    assert log.lines_after(b"\n") == [""]


def test_progress_bar_is_returned_as_it_comes(log: GrowingLog) -> None:
    log.lines_after(b"10%\r")
    assert log.lines_after(b"", seconds=1) == ["10%"]
    assert log.lines_after(b"20%\r30%\r") == ["20%"]
    assert log.lines_after(b"", seconds=1) == ["30%"]


def test_half_a_character_waits_for_its_other_half(log: GrowingLog) -> None:
    log.lines_after("grü".encode()[:-1])
    assert log.lines_after(b"", seconds=1) == ["gr"]
    assert log.lines_after("ü".encode()[1:] + b"n\n") == ["ün"]


def test_line_without_an_end_comes_in_bounded_pieces(log: GrowingLog) -> None:
    content = b"x" * 200_000
    events = log.lines_after(content + b"\nnext\n")
    assert events[-1] == "next"
    *parts, last = events[:-1]
    assert len(parts) == 3
    mark = CUT_MARK.decode()
    assert all(part.endswith(mark) and len(part) < 70_000 for part in parts)
    assert "".join(part.removesuffix(mark) for part in parts) + last == content.decode()


@pytest.mark.parametrize("rotated_after", range(0, 60, 7))
def test_reading_resumes_after_a_line_across_a_rotation(path: Path, rotated_after: int) -> None:
    lines = [f"line {number} {'x' * 100}" for number in range(60)]
    append(path, "".join(f"{line}\n" for line in lines).encode())
    read = LineReader(LogReader(path, BEFORE_THE_FIRST)).read_lines()
    assert [line.text for line in read] == lines
    rotate(path)
    position = Position.from_text(read[rotated_after].position)
    assert position is not None
    again = read_all(LineReader(LogReader(path, position)))
    assert [line.text for line in again] == lines[rotated_after + 1 :]
