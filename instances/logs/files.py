"""Where does a backend's output go, and how does it end?

One file an instance, to which every launch appends; ``rotation`` cuts the older lines off. The
child writes to it directly, so there is no reader whose death could end a backend.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from instances.logs.segments import HeldLog, held_still
from llamactl.config import AppConfig

BLOCK_BYTES = 64 * 1024
LONGEST_TAIL_BYTES = 32 * 1024 * 1024


def log_path(config: AppConfig, name: str) -> Path:
    """Where the log of the instance called ``name`` is; the file needn't exist."""
    return config.instances.logs_dir / f"{name}.log"


def open_log(path: Path, *, create_directory: bool) -> int:
    """A descriptor to append to, for our headers and for the child. Raises OSError.

    O_APPEND, because a log that is cut under a writer without it becomes a sparse file of NULs.
    Mode 0600: prompts may be in it.
    """
    if create_directory:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags, 0o600)


def write_started(descriptor: int, name: str, at: datetime) -> None:
    """Mark where a launch begins. Raises OSError."""
    os.write(descriptor, f"\n{_started(name)}{at:%Y-%m-%d %H:%M:%S} ===\n".encode())


def write_stopped(path: Path, name: str, at: datetime) -> None:
    """Mark where a launch ended. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(
            descriptor, f"=== Instance {name} stopped at {at:%Y-%m-%d %H:%M:%S} ===\n".encode()
        )
    finally:
        os.close(descriptor)


def tail_of_launch(path: Path, name: str, lines: int, *, max_bytes: int) -> list[str]:
    """As ``tail``, but nothing from before the last launch: its errors are not this one's."""
    found = tail(path, lines + 1, max_bytes=max_bytes)
    begins = [at for at, line in enumerate(found) if line.startswith(_started(name))]
    return found[begins[-1] + 1 :] if begins else found[-lines:]


def tail(path: Path, lines: int, *, max_bytes: int = LONGEST_TAIL_BYTES) -> list[str]:
    """The last ``lines`` lines of the log, without line ends; ``[]`` where there is no file.

    Reads blocks from the end, over the rotated files too, and never more than ``max_bytes``: a
    line that reaches further back is cut at its front. What is no UTF-8, and NUL, which PostgreSQL
    can't store, becomes U+FFFD.

    Raises OSError where the file can't be read.
    """
    try:
        with held_still(path) as log:
            found = _ending((block for _, _, block in blocks_backwards(log, max_bytes)), lines)
    except FileNotFoundError:
        return []
    return [_readable(line) for line in found]


def blocks_backwards(log: HeldLog, max_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """What the log ends with, from its end: (number of the file, offset in it, what is there).

    Raises OSError.
    """
    for offset, length in _ranges_backwards(log.begin(), log.size(), max_bytes):
        yield log.number, offset, log.read(offset, length)
    left = max_bytes - log.size()
    for part in reversed(log.parts):
        if left <= 0:
            return
        begin, size = part.begin(), part.size()
        # A compressed one can only be read forwards, so its end is read once.
        block_bytes = size if part.is_compressed else BLOCK_BYTES
        for offset, length in _ranges_backwards(begin, size, left, block_bytes=block_bytes):
            yield part.number, offset, part.read(offset, length)
        left -= size


def _started(name: str) -> str:
    return f"=== Instance {name} started at "


def _ranges_backwards(
    begin: int, end: int, max_bytes: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, int]]:
    """(Offset, length) of the blocks from ``begin`` to ``end``, the last one first."""
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
            # One more than asked for: the text may end with one, or with an unfinished line.
            break
    text = b"".join(reversed(blocks)).removesuffix(b"\n")
    return text.split(b"\n")[-lines:] if blocks else []


def _readable(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace").replace("\x00", "\ufffd")
