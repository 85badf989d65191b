"""Lock files, each for a directory or a role that one process may have."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.02


class Locked(Exception):
    """Another process holds the lock; ``pid`` is the process that took the lock, if known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is locked by {f'process {pid}' if pid else 'another process'}")
        self.path = path
        self.pid = pid


def acquire(
    path: Path, *, wait_seconds: float = 0.0, on_wait: Callable[[], None] | None = None
) -> int:
    """Acquire the lock and return its descriptor; closing the descriptor releases the lock.

    The lock belongs to the open file: a child that inherits the descriptor holds the lock as well,
    until the child ends. ``on_wait`` is called once if the lock is taken. The file is never
    removed: a process that had opened the removed file would lock nothing.

    Raises Locked if the lock is still taken after ``wait_seconds``, and OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(descriptor):
            if wait_seconds > 0 and on_wait is not None:
                on_wait()
            deadline = time.monotonic() + wait_seconds
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise Locked(path, _read_pid(descriptor))
                time.sleep(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(descriptor: int) -> int | None:
    with suppress(ValueError):
        return int(os.pread(descriptor, 32, 0))
    return None
