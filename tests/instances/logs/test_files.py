from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from instances.logs.files import (
    BLOCK_BYTES,
    open_log,
    tail,
    tail_of_launch,
    write_started,
    write_stopped,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "one.log"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_log_is_appended_to_and_private(path: Path) -> None:
    for _ in range(2):
        descriptor = open_log(path, create_directory=True)
        write_started(descriptor, "one", AT)
        os.close(descriptor)
    write_stopped(path, "one", AT)
    assert path.read_text() == (
        "\n=== Instance one started at 2026-01-02 03:04:05 ===\n" * 2
        + "=== Instance one stopped at 2026-01-02 03:04:05 ===\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_fifo_in_the_place_of_a_log_is_refused(path: Path) -> None:
    # It should not wait for the other end: the supervisor's loop opens the log.
    path.parent.mkdir()
    os.mkfifo(path)
    for use in (
        lambda: open_log(path, create_directory=True),
        lambda: write_stopped(path, "one", AT),
        lambda: tail(path, 5),
    ):
        with pytest.raises(OSError, match="no file"):
            use()


def test_a_log_may_be_a_link_to_a_file_or_to_the_null_device(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    for target in (tmp_path / "elsewhere.log", Path("/dev/null")):
        path.symlink_to(target)
        descriptor = open_log(path, create_directory=False)
        write_started(descriptor, "one", AT)
        assert os.get_blocking(descriptor)
        os.close(descriptor)
        path.unlink()
    assert "=== Instance one started" in (tmp_path / "elsewhere.log").read_text()


def test_a_segment_that_is_no_file_is_left_out(path: Path) -> None:
    write(path, b"new\n")
    os.mkfifo(path.with_name("one.log.2"))
    path.with_name("one.log.3").mkdir()
    path.with_name("one.log.1").write_bytes(b"old\n")
    assert tail(path, 5) == ["old", "new"]


def test_a_missing_directory_is_only_made_if_asked(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(path, create_directory=False)


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 5, []),
        (b"\n", 5, [""]),
        (b"a\nb\nc\n", 2, ["b", "c"]),
        (b"a\nb\nc", 2, ["b", "c"]),
        (b"a\nb\n", 5, ["a", "b"]),
        (b"a\n\n\n", 2, ["", ""]),
        (b"a\r\nb\r\n", 5, ["a", "b"]),
        (b"a\nb\n", 0, []),
        (b"a\nb\n", -1, []),
        (b"\xff\xfe broken\n", 1, ["\ufffd\ufffd broken"]),
        (b"nul \x00 byte\n", 1, ["nul \ufffd byte"]),
        ("grün\n".encode(), 1, ["grün"]),
    ],
)
def test_tail(path: Path, content: bytes, lines: int, expected: list[str]) -> None:
    assert tail(write(path, content), lines) == expected


def test_the_tail_of_a_missing_file_is_empty(path: Path) -> None:
    assert tail(path, 10) == []


def test_the_tail_of_a_large_file_reads_only_its_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"".join(b"line %07d\n" % number for number in range(500_000))
    write(path, content)
    read = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert tail(path, 3) == ["line 0499997", "line 0499998", "line 0499999"]
    assert sum(read) <= 2 * BLOCK_BYTES


@pytest.mark.parametrize("length", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_lines_across_blocks_stay_whole(path: Path, length: int) -> None:
    write(path, b"first\n" + b"x" * length + b"\nlast\n")
    assert tail(path, 3) == ["first", "x" * length, "last"]


def test_a_line_of_many_megabytes_is_cut_at_its_front(path: Path) -> None:
    write(path, b"x" * 5_000_000 + b"end")
    found = tail(path, 20, max_bytes=100_000)
    assert [len(line) for line in found] == [100_000]
    assert found[0].endswith("xend")


def test_the_tail_of_a_launch_has_nothing_of_the_launch_before(path: Path) -> None:
    descriptor = open_log(path, create_directory=True)
    os.write(descriptor, b"error: of long ago\n")
    write_started(descriptor, "one", AT)
    os.write(descriptor, b"new\n")
    os.close(descriptor)
    assert tail_of_launch(path, "one", 20, max_bytes=100_000) == ["new"]
    assert tail_of_launch(path, "one", 1, max_bytes=100_000) == ["new"]


def test_the_tail_of_a_long_launch_is_its_last_lines(path: Path) -> None:
    write(path, b"".join(b"%d\n" % number for number in range(50)))
    assert tail_of_launch(path, "one", 2, max_bytes=100_000) == ["48", "49"]
