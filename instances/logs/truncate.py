"""Rotation of a log that a running backend writes to.

The older lines are copied to the next segment and then removed from the front of the file. On ext4
and XFS the removal is one atomic step of the kernel (fallocate with COLLAPSE_RANGE): the writer
notices nothing and no byte is lost. COLLAPSE_RANGE removes whole blocks only, so the line that ends
within the last block is completed in the segment, and a heading of llamactl replaces its rest.

On other file systems (btrfs, ZFS, NFS, tmpfs) the file is copied and truncated, as by logrotate's
``copytruncate``: lines that the backend writes between the last copy and the truncation are lost.
Stopping the writer in between would lose no line, but would stall its responses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from instances.logs.segments import (
    HEADING,
    Segment,
    lock,
    next_number,
    segment_path,
    segments_of,
    unfinished_path,
)

MIB = 1024 * 1024
COLLAPSE_RANGE = 0x08
SMALLEST_BLOCK_BYTES = 4096
LINE_SEARCH_BYTES = MIB
"""Longest line that is kept in one file; a longer one is split."""
COPY_BYTES = 8 * MIB
CATCH_UP_ROUNDS = 20
"""Copies of new text before a truncation."""
RESERVE_BYTES = 16 * MIB
"""Free space that a copy leaves on the disk, because others write there, too."""

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})


def rotate(path: Path) -> Segment | None:
    """Move all but the last lines of the log at ``path`` to its next segment.

    1. Copy the older lines, while the log is written to and read.
    2. Lock readers out, remove those lines from the log, and give the copy its name.

    Returns ``None`` for a log that is too short. Raises OSError; then the log is unchanged, or
    ``recover`` repairs it.
    """
    recover(path)
    number = next_number(segments_of(path))
    target = segment_path(path, number)
    log = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        heading = HEADING + os.fsencode(target.name) + b" "
        place = _place(log, len(heading))
        if place.blocks <= 0:
            return None
        _require_space(log, place.end)
        _move_front(log, unfinished_path(path), place, heading)
        os.rename(unfinished_path(path), target)
    finally:
        os.close(log)  # which unlocks it
    return Segment(number, target)


def recover(path: Path) -> None:
    """Complete or undo a rotation of a worker that was killed. Raises OSError."""
    unfinished = unfinished_path(path)
    if not unfinished.exists():
        return
    if _begins_with(path, unfinished):
        unfinished.unlink()  # nothing had been removed from the log yet
    else:
        unfinished.rename(segment_path(path, next_number(segments_of(path))))


@dataclass(frozen=True)
class _Place:
    """The place in a log where it is divided."""

    blocks: int
    """Bytes that can be removed from the front: whole blocks."""
    end: int
    """End of the segment, at a line end if possible."""


def _place(log: int, heading_length: int) -> _Place:
    size = os.fstat(log).st_size
    block = max(SMALLEST_BLOCK_BYTES, os.fstatvfs(log).f_bsize)
    begin = max(0, size - LINE_SEARCH_BYTES)
    text = os.pread(log, size - begin, begin)
    last_end = begin + text.rfind(b"\n") + 1
    if last_end > begin:
        blocks = (last_end - heading_length - 1) // block * block
        # The first line that leaves space for the heading before its end.
        earliest = max(0, blocks + heading_length - begin)
        return _Place(blocks, begin + text.index(b"\n", earliest) + 1)
    blocks = (size - 1) // block * block
    return _Place(blocks, blocks)


def _move_front(log: int, unfinished: Path, place: _Place, heading: bytes) -> None:
    """Copy the front of the log to ``unfinished`` and remove it from the log. Raises OSError."""
    copy = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _copy(log, copy, 0, place.end)
            os.fsync(copy)
            if not lock(log, fcntl.LOCK_EX):
                raise OSError("readers kept it locked")
            is_collapsed = _collapse(log, place.blocks)
            copied = place.end if is_collapsed else _catch_up(log, copy, place.end)
        except BaseException:
            os.unlink(unfinished)  # nothing has been removed from the log yet
            raise
        if is_collapsed:
            os.pwrite(log, _filler(heading, place.end - place.blocks), 0)
        else:
            _truncate(log, copy, copied)
    finally:
        os.close(copy)


def _filler(heading: bytes, length: int) -> bytes:
    """Return the heading, padded to the text that the segment already has."""
    return heading.ljust(length - 1, b"=") + b"\n" if length else b""


def _require_space(log: int, size: int) -> None:
    system = os.fstatvfs(log)
    if system.f_bavail * system.f_frsize < size + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, f"a rotated file of {size // MIB} MiB would fill the disk")


def _copy(log: int, copy: int, begin: int, end: int) -> None:
    while begin < end:
        sent = os.sendfile(copy, log, begin, min(end - begin, COPY_BYTES))
        if sent == 0:
            raise OSError("another program has truncated it meanwhile")
        begin += sent


def _collapse(log: int, length: int) -> bool:
    """Remove ``length`` bytes from the front; ``False`` where the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int64(0), ctypes.c_int64(length))
    if libc.fallocate(log, COLLAPSE_RANGE, *arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number))


def _catch_up(log: int, copy: int, copied: int) -> int:
    """Copy new text until there is none, or CATCH_UP_ROUNDS times; returns the end of the copy."""
    for _ in range(CATCH_UP_ROUNDS):
        size = os.fstat(log).st_size
        if size == copied:
            break
        _copy(log, copy, copied, size)
        copied = size
    return copied


def _truncate(log: int, copy: int, copied: int) -> None:
    """Empty the log but for an unfinished last line, which leaves the copy.

    Text after ``copied`` is lost.
    """
    begin = max(0, copied - LINE_SEARCH_BYTES)
    text = os.pread(log, copied - begin, begin)
    last_end = text.rfind(b"\n") + 1
    rest = text[last_end:] if last_end else b""
    os.ftruncate(copy, copied - len(rest))
    os.pwrite(log, rest, 0)
    os.ftruncate(log, len(rest))


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
