"""How is a log cut, while its writers write, so that not a byte is lost?

Its older lines are copied to the next part, and then taken out of the file at its front, which
moves the rest forward. That is one step for the kernel (COLLAPSE_RANGE; ext4 and XFS have it), so
the writers need not know. It takes out whole blocks alone, so the line that ends within the last
of them is finished in the part, and our own line stands in its place.

Where the file system can't, the writers are stopped for the time that it takes to copy what has
come meanwhile and to empty the file.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from instances.logs.segments import (
    HEADING,
    Part,
    lock,
    next_number,
    part_path,
    parts_of,
    unfinished_path,
)

MIB = 1024 * 1024
COLLAPSE_RANGE = 0x08
SMALLEST_BLOCK_BYTES = 4096
LINE_SEARCH_BYTES = MIB
"""A line that is longer is cut."""
COPY_BYTES = 8 * MIB
SMALL_REST_BYTES = MIB
"""What may be left to be copied while the writers are stopped, if they can be caught up with."""
CATCH_UP_ROUNDS = 10
RESERVE_BYTES = 16 * MIB
"""A copy must not take the last of a disk, on which others write, too."""

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})


def cut(path: Path, standstill: Callable[[], AbstractContextManager[None]]) -> Part | None:
    """Move all but the last lines of the log at ``path`` to its next part; ``None``: too short.

    ``standstill`` stops the writers for as long as it is entered.

    1. Copy the older lines, while the log is written to and read.
    2. With the readers kept away, take them out, and give the copy its name.

    Raises OSError, and then the log is as it was, or ``finish`` makes it so.
    """
    finish(path)
    number = next_number(parts_of(path))
    heading = HEADING + os.fsencode(part_path(path, number).name) + b" "
    log = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    copy = -1
    try:
        place = _place(log, len(heading))
        if place.blocks <= 0:
            return None
        _need_room(log, place.end)
        unfinished = unfinished_path(path)
        copy = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        is_copied = False
        try:
            _copy(log, copy, 0, place.end)
            os.fsync(copy)
            if not lock(log, fcntl.LOCK_EX):
                raise OSError("it was being read all the time")
            if _collapse(log, place.blocks):
                is_copied = True
                os.pwrite(log, _filler(heading, place.end - place.blocks), 0)
            else:
                copied = _catch_up(log, copy, place.end)
                with standstill():
                    rest = _copy_all_but_rest(log, copy, copied)
                    is_copied = True
                    os.pwrite(log, rest, 0)
                    os.ftruncate(log, len(rest))
            os.rename(unfinished, part_path(path, number))
        except BaseException:
            if not is_copied:
                os.unlink(unfinished)
            raise
        fcntl.flock(log, fcntl.LOCK_UN)
        os.fsync(copy)  # what came last while the writers were stopped
    finally:
        os.close(log)
        if copy >= 0:
            os.close(copy)
    return Part(number, part_path(path, number))


def finish(path: Path) -> None:
    """Put right what a worker that was killed while cutting has left. Raises OSError."""
    unfinished = unfinished_path(path)
    if not unfinished.exists():
        return
    if _begins_with(path, unfinished):
        unfinished.unlink()  # nothing had been taken out yet
    else:
        unfinished.rename(part_path(path, next_number(parts_of(path))))


@dataclass(frozen=True)
class _Place:
    """Where to cut."""

    blocks: int
    """Bytes that can be taken out at the front: whole blocks."""
    end: int
    """Where the part ends, with a line if possible."""


def _place(log: int, heading_length: int) -> _Place:
    size = os.fstat(log).st_size
    block = max(SMALLEST_BLOCK_BYTES, os.fstatvfs(log).f_bsize)
    begin = max(0, size - LINE_SEARCH_BYTES)
    text = os.pread(log, size - begin, begin)
    last_end = begin + text.rfind(b"\n") + 1
    if last_end > begin:
        blocks = (last_end - heading_length - 1) // block * block
        # The first line that ends where our own fits in before.
        earliest = max(0, blocks + heading_length - begin)
        return _Place(blocks, begin + text.index(b"\n", earliest) + 1)
    blocks = (size - 1) // block * block
    return _Place(blocks, blocks)


def _filler(heading: bytes, length: int) -> bytes:
    """Our own line, in the place of what the part has already."""
    return heading.ljust(length - 1, b"=") + b"\n" if length else b""


def _need_room(log: int, size: int) -> None:
    system = os.fstatvfs(log)
    if system.f_bavail * system.f_frsize < size + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, f"a rotated file of {size // MIB} MiB would fill the disk")


def _copy(log: int, copy: int, begin: int, end: int) -> None:
    while begin < end:
        sent = os.sendfile(copy, log, begin, min(end - begin, COPY_BYTES))
        if sent == 0:
            raise OSError("somebody else has shortened it meanwhile")
        begin += sent


def _collapse(log: int, length: int) -> bool:
    """Take ``length`` bytes out at the front; ``False`` where the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int64(0), ctypes.c_int64(length))
    if libc.fallocate(log, COLLAPSE_RANGE, *arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number))


def _catch_up(log: int, copy: int, copied: int) -> int:
    """Copy on until little is left; returns up to where."""
    for _ in range(CATCH_UP_ROUNDS):
        size = os.fstat(log).st_size
        if size - copied <= SMALL_REST_BYTES:
            break
        _copy(log, copy, copied, size)
        copied = size
    return copied


def _copy_all_but_rest(log: int, copy: int, copied: int) -> bytes:
    """Copy what is left, but for a last line that has no end yet: that is returned."""
    size = os.fstat(log).st_size
    _copy(log, copy, copied, size)
    begin = max(0, size - LINE_SEARCH_BYTES)
    text = os.pread(log, size - begin, begin)
    last = text.rfind(b"\n")
    rest = text[last + 1 :] if last >= 0 else b""
    os.ftruncate(copy, size - len(rest))
    return rest


def _begins_with(path: Path, copy: Path) -> bool:
    """Whether the log at ``path`` begins with all that ``copy`` holds."""
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return False
    with log, copy.open("rb") as copied:
        while block := copied.read(MIB):
            if log.read(len(block)) != block:
                return False
    return True
