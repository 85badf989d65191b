"""How is a log read on, while it grows and is rotated?"""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from instances.logs.files import LONGEST_TAIL_BYTES, blocks_backwards
from instances.logs.segments import HeldLog, held_still, read_from

logger = logging.getLogger(__name__)

_POSITION = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True)
class Position:
    """A place in a log that stays the same when the log is rotated."""

    inode: int
    """Of the current file: another one means that the log was deleted and begun anew."""
    number: int
    """Of the part, or that the current file will get."""
    offset: int

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.number}-{self.offset}"

    @classmethod
    def from_text(cls, text: str) -> Position | None:
        """What ``str`` made; ``None`` for any other text."""
        match = _POSITION.fullmatch(text)
        return cls(int(match[1], 16), int(match[2]), int(match[3])) if match else None


BEFORE_THE_FIRST = Position(0, 1, 0)
"""Where a log begins that isn't there yet."""


class LogReader:
    """Reads a log from ``position`` on, over all its files. Use it on any one thread at a time."""

    def __init__(self, path: Path, position: Position) -> None:
        self.position = position
        self._path = path
        self._part: BinaryIO | None = None
        self._quiet: tuple[int, int, int] | None = None
        """How the current file looked when there was nothing more to read."""
        self._lock = threading.Lock()

    def read(self, limit: int) -> bytes:
        """What follows, all of it from one file; ``b""`` if there is nothing (yet).

        Raises OSError.
        """
        with self._lock:
            while True:
                if self._part is None:
                    data = self._read_current(limit)
                else:
                    data = self._read_part(self._part, limit) or None
                if data is not None:
                    self.position = replace(self.position, offset=self.position.offset + len(data))
                    return data

    def close(self) -> None:
        with self._lock:
            self._leave_part()

    def _read_current(self, limit: int) -> bytes | None:
        """``None``: the place is in a part, by now."""
        try:
            stat = os.stat(self._path)
            looks = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if looks == self._quiet:
                return b""
            with held_still(self._path) as log:
                self._find_place(log)
                if self.position.number < log.number:
                    self._enter_part(log)
                    return None
                data = log.read(self.position.offset, limit)
        except FileNotFoundError:
            return b""
        self._quiet = None if data else looks
        return data

    def _find_place(self, log: HeldLog) -> None:
        """Make sense of the position in a log that may have been rotated or tidied up meanwhile."""
        inode = os.fstat(log.descriptor).st_ino
        here = self.position
        number = min(here.number, log.number)
        is_replaced = here.inode != inode or here.offset > log.size()
        offset = 0 if number == log.number and is_replaced else here.offset
        if number == log.number and offset == 0:
            offset = log.begin()
        self.position = Position(inode, number, offset)

    def _enter_part(self, log: HeldLog) -> None:
        """Open the part that has the text at the position, or what is left of what follows it.

        A part ends before what was last in the file when it was cut off: that is now at the
        beginning of the next.
        """
        number, beyond = self.position.number, self.position.offset
        is_first = True
        for part in log.parts:
            if part.number < number:
                continue
            if part.number > number:
                beyond = 0  # those between are gone
            number = part.number + 1
            try:
                begin, size = part.begin(), part.size()
                offset = max(begin, beyond) if is_first else begin + beyond
                is_first = False
                if offset < size:
                    self._part = part.open(offset)
                    self.position = replace(self.position, number=part.number, offset=offset)
                    return
                beyond = offset - size
            except OSError as error:
                logger.warning("%s is left out: %s", part.path, error)
                is_first, beyond = False, 0
        offset = log.begin() + (beyond if number == log.number else 0)
        self.position = replace(self.position, number=log.number, offset=offset)

    def _read_part(self, part: BinaryIO, limit: int) -> bytes:
        try:
            data = read_from(part, limit)
        except OSError as error:
            logger.warning("the rest of a log's part is left out: %s", error)
            data = b""
        if not data:
            self._leave_part()
        return data

    def _leave_part(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None
        self.position = Position(self.position.inode, self.position.number + 1, 0)


def start_of(path: Path) -> tuple[Position, int]:
    """Where the current file begins, and how long its text is now. Raises OSError."""
    with held_still(path) as log:
        begin = log.begin()
        inode = os.fstat(log.descriptor).st_ino
        return Position(inode, log.number, begin), log.size() - begin


def position_of_last(path: Path, lines: int, *, max_bytes: int = LONGEST_TAIL_BYTES) -> Position:
    """Where the last ``lines`` lines begin, ``max_bytes`` before the end at most.

    Raises OSError.
    """
    try:
        with held_still(path) as log:
            inode = os.fstat(log.descriptor).st_ino
            place = Position(inode, log.number, log.size())
            wanted = max(0, lines)
            is_last = True
            for number, offset, block in blocks_backwards(log, max_bytes):
                if is_last and block.endswith(b"\n"):
                    wanted += 1
                is_last = False
                line_ends = block.count(b"\n")
                if line_ends >= wanted:
                    return Position(inode, number, offset + _after_last(block, wanted))
                wanted -= line_ends
                place = Position(inode, number, offset)
            return place
    except FileNotFoundError:
        return BEFORE_THE_FIRST


def _after_last(block: bytes, wanted: int) -> int:
    """The offset after the ``wanted``-th line end from the end of ``block``."""
    end = len(block)
    for _ in range(wanted):
        end = block.rindex(b"\n", 0, end)
    return end + 1 if wanted else end
