"""The files of one log: the current one, and the segments that were rotated off it.

The backend writes to the current file. Rotation moves its older lines to ``<log>.1``, ``<log>.2``
and so on: the highest number is the newest segment, and a number is given once. Every segment but
the newest may be compressed (``.gz``). The name of a log ends with ``.log``, so no log is called
like a segment of another one.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from llamactl.core.regular_file import open_regular

HEADING = b"=== The log goes on from "
"""Start of llamactl's own first line in a file after a rotation within a block.

The heading is no part of the log's text.
"""
LONGEST_HEADING_BYTES = 2 * 1024 * 1024
LOCK_SECONDS = 2.0
LOCK_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Segment:
    """A rotated file of a log; no process writes to it any more."""

    number: int
    path: Path

    @property
    def is_compressed(self) -> bool:
        return self.path.suffix == ".gz"

    def open(self, offset: int = 0) -> BinaryIO:
        """Open the uncompressed text at ``offset``. Raises OSError."""
        opened = gzip.GzipFile(self.path) if self.is_compressed else self.path.open("rb")
        file = cast("BinaryIO", opened)
        try:
            file.seek(offset)
        except (EOFError, zlib.error) as error:
            file.close()
            raise OSError(f"{self.path.name} is damaged: {error}") from error
        except OSError:
            file.close()
            raise
        return file

    def size(self) -> int:
        """Return the length of the uncompressed text. Raises OSError."""
        if not self.is_compressed:
            return self.path.stat().st_size
        with self.path.open("rb") as file:
            # gzip stores the length modulo 4 GiB; larger segments are never compressed.
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")

    def begin(self) -> int:
        """Return the offset of the log's text, after a heading. Raises OSError."""
        return _after_heading(self.read)

    def read(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes of the uncompressed text. Raises OSError."""
        with self.open(offset) as file:
            return read_from(file, length)


@dataclass(frozen=True)
class LockedLog:
    """A log under a shared lock, which keeps rotation away."""

    descriptor: int
    """The current file, open for reading."""
    segments: list[Segment]
    """Oldest first."""

    @property
    def number(self) -> int:
        """The number that the current file's text gets when it is rotated."""
        return next_number(self.segments)

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def begin(self) -> int:
        """Return the offset of the log's text in the current file. Raises OSError."""
        return _after_heading(self.read)

    def read(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes of the current file. Raises OSError."""
        return os.pread(self.descriptor, length, offset)


def _after_heading(read: Callable[[int, int], bytes]) -> int:
    if read(0, len(HEADING)) != HEADING:
        return 0
    return read(0, LONGEST_HEADING_BYTES).find(b"\n") + 1


def next_number(segments: list[Segment]) -> int:
    return segments[-1].number + 1 if segments else 1


def segment_path(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def unfinished_path(path: Path) -> Path:
    """Return the path of the copy that becomes the next segment."""
    return path.with_name(f"{path.name}.rotating")


def segments_of(path: Path) -> list[Segment]:
    """List the existing segments of the log at ``path``, oldest first. Raises OSError."""
    pattern = re.compile(re.escape(path.name) + r"\.([0-9]{1,18})(\.gz)?", re.ASCII)
    found: dict[int, Segment] = {}
    with os.scandir(path.parent) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            # During compression both files exist, and the plain one is complete.
            if match and not (match[2] and int(match[1]) in found) and entry.is_file():
                found[int(match[1])] = Segment(int(match[1]), path.with_name(entry.name))
    return [found[number] for number in sorted(found)]


def read_from(file: BinaryIO, length: int) -> bytes:
    """Read up to ``length`` bytes; damage in a compressed file is an OSError, too."""
    try:
        return file.read(length)
    except (EOFError, zlib.error) as error:
        raise OSError(f"{file.name} is damaged: {error}") from error


@contextmanager
def lock_for_reading(path: Path) -> Iterator[LockedLog]:
    """Open the log for reading and keep rotation away until the end. Raises OSError.

    Rotation holds the lock for milliseconds. A worker that froze during a rotation must not block
    every reader, so after LOCK_SECONDS the log is read without the lock.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        lock(descriptor, fcntl.LOCK_SH)
        yield LockedLog(descriptor, segments_of(path))
    finally:
        os.close(descriptor)


def lock(descriptor: int, kind: int) -> bool:
    """Lock the current file with flock; return ``False`` if others held it for LOCK_SECONDS."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return True
