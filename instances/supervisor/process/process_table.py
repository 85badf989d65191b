"""Table of the kernel's processes: parents, sessions and start times.

For processes of a launch without a control group: a child is recognized as long as its parent
lives, and afterwards because it was noted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Identity = tuple[int, int]
"""Pid and start time of a process."""


@dataclass(frozen=True)
class ProcessStat:
    """The fields of ``/proc/<pid>/stat`` that identify a process."""

    state: str
    session: int
    started_ticks: int
    """Clock ticks from boot to the start. Pid and start time are unique until the next boot."""
    parent: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. A zombie does not; PID 1 may leave one for a long time."""
        return self.state not in "ZXx"


def read_stat(pid: int) -> ProcessStat | None:
    """Read the stat of ``pid``; ``None`` if there is no such process.

    Also ``None`` for another user's process where /proc is mounted with ``hidepid`` (proc(5)).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The second field is the program's name in brackets, and may hold blanks and brackets itself.
    fields = text.rpartition(b")")[2].split()
    return ProcessStat(fields[0].decode(), int(fields[3]), int(fields[19]), int(fields[1]))


def read_table() -> dict[int, ProcessStat]:
    """Read the stat of every living process: about 20 µs for each."""
    return _read(_pids())


def read_younger(pid: int) -> dict[int, ProcessStat]:
    """Read the stat of a living process and of all younger processes.

    The kernel numbers processes and threads one after the other, and begins again at the lowest
    free number after ``pid_max``; the last given number ends /proc/loadavg (proc(5)).
    """
    last = int(Path("/proc/loadavg").read_bytes().split()[-1])
    if pid <= last:
        return _read(each for each in _pids() if pid <= each <= last)
    return _read(each for each in _pids() if pid <= each or each <= last)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _read(pids: Iterable[int]) -> dict[int, ProcessStat]:
    stats = ((pid, read_stat(pid)) for pid in pids)
    return {pid: stat for pid, stat in stats if stat is not None and stat.is_alive}


def family_of(roots: Iterable[Identity], table: Mapping[int, ProcessStat]) -> frozenset[Identity]:
    """Return the living ``roots``, their descendants, and the members of their sessions.

    The roots are processes of one launch, so that the members of their sessions are too: the
    leader of a launch leads a session of its own, and no process enters the session of another. A
    root whose pid another process has by now is left out.
    """
    known = {
        pid
        for pid, ticks in roots
        if (stat := table.get(pid)) is not None and stat.started_ticks == ticks
    }
    while True:
        sessions = {table[pid].session for pid in known}
        found = {
            pid for pid, stat in table.items() if stat.parent in known or stat.session in sessions
        }
        if found <= known:
            return frozenset((pid, table[pid].started_ticks) for pid in known)
        known |= found
