"""Where does a backend's output go, and how does it end?

One file an instance, to which every launch appends. The child writes to it directly, so there is
no reader whose death could end a backend.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from llamactl.config import AppConfig

BLOCK_BYTES = 64 * 1024
LONGEST_TAIL_BYTES = 32 * 1024 * 1024


def log_path(config: AppConfig, name: str) -> Path:
    """Where the log of the instance called ``name`` is; the file needn't exist."""
    return config.instances.logs_dir / f"{name}.log"


def open_log(path: Path, *, create_directory: bool) -> int:
    """A descriptor to append to, for our headers and for the child. Raises OSError.

    O_APPEND, because a log that is truncated under a writer without it becomes a sparse file of
    NULs. Mode 0600: prompts may be in it.
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
    """The last ``lines`` lines of the file, without line ends; ``[]`` where there is no file.

    Reads blocks from the end, and never more than ``max_bytes``: a line that reaches further back
    is cut at its front. What is no UTF-8, and NUL, which PostgreSQL can't store, becomes U+FFFD.

    Raises OSError where the file can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        size = os.fstat(descriptor).st_size
        found = _ending(_blocks_backwards(descriptor, max(0, size - max_bytes), size), lines)
    finally:
        os.close(descriptor)
    return [_readable(line) for line in found]


def _started(name: str) -> str:
    return f"=== Instance {name} started at "


def _blocks_backwards(descriptor: int, first: int, end: int) -> Iterator[bytes]:
    while end > first:
        begin = max(first, end - BLOCK_BYTES)
        yield os.pread(descriptor, end - begin, begin)
        end = begin


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
