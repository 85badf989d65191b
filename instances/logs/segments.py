"""Of which files does a log consist, and when do they hold still?

The current one, to which the backend writes, and those that it has been cut into: ``<log>.1``,
``<log>.2`` …, the highest number the newest; all but the newest may be compressed (``.gz``). A
number is given once. No instance's log can be called like another's rotated one: the former ends
with ``.log``.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

HEADING = b"=== The log goes on from "
"""Our own first line of a file whose beginning was cut off within a block; no text of the log."""
LONGEST_HEADING_BYTES = 2 * 1024 * 1024
LOCK_SECONDS = 2.0
LOCK_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Part:
    """A file that was cut off the log; nobody writes to it any more."""

    number: int
    path: Path

    @property
    def is_compressed(self) -> bool:
        return self.path.suffix == ".gz"

    def open(self, offset: int = 0) -> BinaryIO:
        """Its text, from ``offset`` on. Raises OSError."""
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
        """How long its text is. Raises OSError."""
        if not self.is_compressed:
            return self.path.stat().st_size
        with self.path.open("rb") as file:
            # Modulo 4 GiB, and larger ones are never compressed.
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")

    def begin(self) -> int:
        """Where the log's text begins in it. Raises OSError."""
        return _after_heading(self.read)

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError."""
        with self.open(offset) as file:
            return read_from(file, length)


@dataclass(frozen=True)
class HeldLog:
    """A log of which nothing is cut off at the moment."""

    descriptor: int
    """Of the current file, to read."""
    parts: list[Part]
    """The oldest first."""

    @property
    def number(self) -> int:
        """What the current file will be called when it is cut off."""
        return next_number(self.parts)

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def begin(self) -> int:
        """Where the log's text begins in the current file. Raises OSError."""
        return _after_heading(self.read)

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError."""
        return os.pread(self.descriptor, length, offset)


def _after_heading(read: Callable[[int, int], bytes]) -> int:
    if read(0, len(HEADING)) != HEADING:
        return 0
    return read(0, LONGEST_HEADING_BYTES).find(b"\n") + 1


def next_number(parts: list[Part]) -> int:
    return parts[-1].number + 1 if parts else 1


def part_path(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def unfinished_path(path: Path) -> Path:
    """The copy that becomes the next part."""
    return path.with_name(f"{path.name}.rotating")


def parts_of(path: Path) -> list[Part]:
    """The parts of the log at ``path`` that are there, the oldest first. Raises OSError."""
    pattern = re.compile(re.escape(path.name) + r"\.([0-9]{1,18})(\.gz)?", re.ASCII)
    found: dict[int, Part] = {}
    for name in os.listdir(path.parent):
        match = pattern.fullmatch(name)
        # While one is being compressed there are both, and the plain one is whole.
        if match and not (match[2] and int(match[1]) in found):
            found[int(match[1])] = Part(int(match[1]), path.with_name(name))
    return [found[number] for number in sorted(found)]


def read_from(file: BinaryIO, length: int) -> bytes:
    """As ``read``, but damage in a compressed file is an OSError, too."""
    try:
        return file.read(length)
    except (EOFError, zlib.error) as error:
        raise OSError(f"{file.name} is damaged: {error}") from error


@contextmanager
def held_still(path: Path) -> Iterator[HeldLog]:
    """The log opened to read, with nothing cut off it until the end. Raises OSError.

    A rotation holds it for milliseconds; a worker that was frozen meanwhile must not hold up
    everybody who reads, so after a while it is read as it is.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        lock(descriptor, fcntl.LOCK_SH)
        yield HeldLog(descriptor, parts_of(path))
    finally:
        os.close(descriptor)


def lock(descriptor: int, kind: int) -> bool:
    """flock the current file; ``False`` if others didn't let go in time."""
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
