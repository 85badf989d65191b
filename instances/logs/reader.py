"""Continuous reading of a log that grows and is rotated."""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from instances.logs.files import LONGEST_TAIL_BYTES, blocks_backwards
from instances.logs.segments import LockedLog, lock_for_reading, read_from

logger = logging.getLogger(__name__)

_POSITION = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True)
class Position:
    """A position in a log that stays valid when the log is rotated."""

    inode: int
    """Inode of the current file; another inode means that the log was deleted and created anew."""
    number: int
    """Number of the segment, or the number that the current file gets when it is rotated."""
    offset: int

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.number}-{self.offset}"

    @classmethod
    def from_text(cls, text: str) -> Position | None:
        """Parse the output of ``str``; ``None`` for any other text."""
        match = _POSITION.fullmatch(text)
        return cls(int(match[1], 16), int(match[2]), int(match[3])) if match else None


BEFORE_THE_FIRST = Position(0, 1, 0)
"""The start of a log that does not exist yet."""


class LogReader:
    """Reads a log from ``position`` on, in all its files. One thread at a time may use it."""

    def __init__(self, path: Path, position: Position) -> None:
        self.position = position
        self._path = path
        self._segment: BinaryIO | None = None
        self._state_at_end: tuple[int, int, int] | None = None
        """Inode, size and time of the current file when all of it had been read."""
        self._lock = threading.Lock()

    def read(self, limit: int) -> bytes:
        """Read on, within one file; ``b""`` at the end of the log. Raises OSError."""
        with self._lock:
            while True:
                if self._segment is None:
                    data = self._read_current(limit)
                else:
                    data = self._read_segment(self._segment, limit) or None
                if data is not None:
                    self.position = replace(self.position, offset=self.position.offset + len(data))
                    return data

    def close(self) -> None:
        with self._lock:
            self._close_segment()

    def _read_current(self, limit: int) -> bytes | None:
        """Read the current file; ``None`` if rotation has moved the position to a segment."""
        try:
            stat = os.stat(self._path)
            state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if state == self._state_at_end:
                return b""
            with lock_for_reading(self._path) as log:
                self._correct_position(log)
                if self.position.number < log.number:
                    self._open_segment(log)
                    return None
                data = log.read(self.position.offset, limit)
        except FileNotFoundError:
            return b""
        self._state_at_end = None if data else state
        return data

    def _correct_position(self, log: LockedLog) -> None:
        """Correct the position in a log that was replaced, truncated or pruned meanwhile."""
        inode = os.fstat(log.descriptor).st_ino
        here = self.position
        number = min(here.number, log.number)
        is_replaced = here.inode != inode or here.offset > log.size()
        offset = 0 if number == log.number and is_replaced else here.offset
        if number == log.number and offset == 0:
            offset = log.begin()
        self.position = Position(inode, number, offset)

    def _open_segment(self, log: LockedLog) -> None:
        """Open the segment with the text at the position, or the next existing one after it.

        The last lines of a file are not moved to its segment by a rotation: they are at the
        beginning of the next file, so an offset may lie beyond the end of its segment.
        """
        number, beyond = self.position.number, self.position.offset
        is_first = True
        for segment in log.segments:
            if segment.number < number:
                continue
            if segment.number > number:
                beyond = 0  # the segments in between were deleted
            number = segment.number + 1
            try:
                begin, size = segment.begin(), segment.size()
                offset = max(begin, beyond) if is_first else begin + beyond
                is_first = False
                if offset < size:
                    self._segment = segment.open(offset)
                    self.position = replace(self.position, number=segment.number, offset=offset)
                    return
                beyond = offset - size
            except OSError as error:
                logger.warning("%s is skipped: %s", segment.path, error)
                is_first, beyond = False, 0
        offset = log.begin() + (beyond if number == log.number else 0)
        self.position = replace(self.position, number=log.number, offset=offset)

    def _read_segment(self, segment: BinaryIO, limit: int) -> bytes:
        try:
            data = read_from(segment, limit)
        except OSError as error:
            logger.warning("the rest of a rotated log is skipped: %s", error)
            data = b""
        if not data:
            self._close_segment()
        return data

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self.position = Position(self.position.inode, self.position.number + 1, 0)


def start_of(path: Path) -> tuple[Position, int]:
    """Return the start of the current file and the length of its text. Raises OSError."""
    with lock_for_reading(path) as log:
        begin = log.begin()
        inode = os.fstat(log.descriptor).st_ino
        return Position(inode, log.number, begin), log.size() - begin


def position_of_last(path: Path, lines: int, *, max_bytes: int = LONGEST_TAIL_BYTES) -> Position:
    """Return the start of the last ``lines`` lines, at most ``max_bytes`` before the end.

    Raises OSError.
    """
    try:
        return range_of_last(path, lines, max_bytes=max_bytes)[0]
    except FileNotFoundError:
        return BEFORE_THE_FIRST


def range_of_last(
    path: Path, lines: int, *, max_bytes: int = LONGEST_TAIL_BYTES
) -> tuple[Position, int]:
    """Return the start of the last ``lines`` lines and the length of their text.

    Raises OSError, FileNotFoundError without a log.
    """
    with lock_for_reading(path) as log:
        inode = os.fstat(log.descriptor).st_ino
        place = Position(inode, log.number, log.size())
        length, wanted = 0, max(0, lines)
        is_last = True
        for number, offset, block in blocks_backwards(log, max_bytes):
            if is_last and block.endswith(b"\n"):
                wanted += 1
            is_last = False
            line_ends = block.count(b"\n")
            length += len(block)
            if line_ends >= wanted:
                begin = _after_last(block, wanted)
                return Position(inode, number, offset + begin), length - begin
            wanted -= line_ends
            place = Position(inode, number, offset)
        return place, length


def _after_last(block: bytes, wanted: int) -> int:
    """Return the offset after the ``wanted``-th line end from the end of ``block``."""
    end = len(block)
    for _ in range(wanted):
        end = block.rindex(b"\n", 0, end)
    return end + 1 if wanted else end
