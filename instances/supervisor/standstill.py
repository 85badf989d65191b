"""How is a backend made to hold still for a moment?

For what must not be written to meanwhile. A worker that is killed within that moment leaves a
stopped backend behind, so whoever adopts one lets it go on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from instances.supervisor.process.pidfd import Process

PATIENCE_SECONDS = 1.0
"""A thread that waits for a device or a disk stops only when that answers."""
POLL_SECONDS = 0.0005

_AT_REST = frozenset("TtZXx")


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """No thread of the process's group runs until the end.

    Raises OSError where one does not stop in time, or somebody else had stopped the process
    already and it is theirs to let it go on.
    """
    if _state(Path(f"/proc/{process.pid}/stat")) in ("T", "t"):
        raise OSError(f"process {process.pid} is stopped (by a debugger?)")
    try:
        process.signal_group(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _is_at_rest(process.pid):
            if time.monotonic() > deadline:
                raise OSError(f"process {process.pid} did not stop within {PATIENCE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        process.signal_group(signal.SIGCONT)


def _is_at_rest(group: int) -> bool:
    """Whether every thread of every process of the group has stopped, or ended."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and _group(int(name)) == group:
            tasks: list[str] = []
            with suppress(OSError):
                tasks = os.listdir(f"/proc/{name}/task")
            if any(
                _state(Path(f"/proc/{name}/task/{task}/stat")) not in _AT_REST for task in tasks
            ):
                return False
    return True


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _state(stat: Path) -> str:
    """The letter for it; ``X``, dead, for what is gone."""
    try:
        text = stat.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return text.rpartition(b")")[2].split()[0].decode()
