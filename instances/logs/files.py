"""Log files of the backends: one file an instance, to which every launch appends.

The backend writes to the file directly. A pipe would need a reader, and the death of that reader
would end the backend. ``truncate`` rotates the older lines away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from instances.logs.segments import LockedLog, lock_for_reading
from llamactl.config import AppConfig
from llamactl.core.regular_file import open_regular

BLOCK_BYTES = 64 * 1024
LONGEST_TAIL_BYTES = 32 * 1024 * 1024


def log_path(config: AppConfig, name: str) -> Path:
    """Return the path of an instance's log; the file may not exist."""
    return config.instances.logs_dir / f"{name}.log"


def open_log(path: Path, *, create_directory: bool) -> int:
    """Open the log for appending, by llamactl and the backend. Raises OSError.

    O_APPEND, because a log that is truncated under a writer without it becomes a sparse file of
    NULs. Mode 0600, because a log may hold prompts.
    """
    if create_directory:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, may_be_device=True)


def write_started(descriptor: int, name: str, at: datetime) -> None:
    """Append the line that marks the start of a launch. Raises OSError."""
    os.write(descriptor, f"\n{_started(name)}{at:%Y-%m-%d %H:%M:%S} ===\n".encode())


def write_stopped(path: Path, name: str, at: datetime) -> None:
    """Append the line that marks the end of a launch. Raises OSError."""
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND, may_be_device=True)
    try:
        os.write(
            descriptor, f"=== Instance {name} stopped at {at:%Y-%m-%d %H:%M:%S} ===\n".encode()
        )
    finally:
        os.close(descriptor)


def tail_of_launch(path: Path, name: str, lines: int, *, max_bytes: int) -> list[str]:
    """Return the last lines of the last launch alone: errors of earlier launches are misleading."""
    found = tail(path, lines + 1, max_bytes=max_bytes)
    begins = [at for at, line in enumerate(found) if line.startswith(_started(name))]
    return found[begins[-1] + 1 :] if begins else found[-lines:]


def tail(path: Path, lines: int, *, max_bytes: int = LONGEST_TAIL_BYTES) -> list[str]:
    """Return the last ``lines`` lines of the log, without line ends; ``[]`` without a file.

    Reads blocks from the end, in the rotated segments too, and at most ``max_bytes``: a line that
    reaches further back loses its front. Invalid UTF-8, and NUL, which PostgreSQL can't store,
    become U+FFFD.

    Raises OSError for an unreadable file.
    """
    try:
        with lock_for_reading(path) as log:
            found = _ending((block for _, _, block in blocks_backwards(log, max_bytes)), lines)
    except FileNotFoundError:
        return []
    return [_readable(line) for line in found]


def blocks_backwards(log: LockedLog, max_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the blocks of the log from its end: (number of the file, offset in it, bytes).

    Raises OSError.
    """
    for offset, length in _ranges_backwards(log.begin(), log.size(), max_bytes):
        yield log.number, offset, log.read(offset, length)
    left = max_bytes - log.size()
    for segment in reversed(log.segments):
        if left <= 0:
            return
        begin, size = segment.begin(), segment.size()
        # A compressed segment can only be read forwards, so it is one block.
        block_bytes = size if segment.is_compressed else BLOCK_BYTES
        for offset, length in _ranges_backwards(begin, size, left, block_bytes=block_bytes):
            yield segment.number, offset, segment.read(offset, length)
        left -= size


def _started(name: str) -> str:
    return f"=== Instance {name} started at "


def _ranges_backwards(
    begin: int, end: int, max_bytes: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the blocks from ``begin`` to ``end``, the last block first."""
    first = max(begin, end - max_bytes)
    while end > first:
        offset = max(first, end - block_bytes)
        yield offset, end - offset
        end = offset


def _ending(blocks_backwards: Iterator[bytes], lines: int) -> list[bytes]:
    if lines <= 0:
        return []
    blocks: list[bytes] = []
    line_ends = 0
    for block in blocks_backwards:
        blocks.append(block)
        line_ends += block.count(b"\n")
        if line_ends > lines:
            # One line end more than asked for: the text may end with an unfinished line.
            break
    text = b"".join(reversed(blocks)).removesuffix(b"\n")
    return text.split(b"\n")[-lines:] if blocks else []


def _readable(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace").replace("\x00", "\ufffd")
