"""Which running processes are ours, though another worker, now gone, started them?

Two proofs: the pid and start time that the database has, and the markers in a process's
environment. Neither alone is enough. A worker killed right after a start has recorded nothing, and
some programs overwrite their environment to set their title.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from instances.supervisor.process.pidfd import (
    CONTAINER_MARKER,
    INSTANCE_MARKER,
    LAUNCH_MARKER,
    NODE_MARKER,
    Marker,
    Process,
    read_stat,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sighting:
    """A process that carries markers, as it was when it was looked at."""

    pid: int
    started_ticks: int
    is_leader: bool
    """Whether it leads a session, as a backend does; what a backend starts rarely does."""
    marker: Marker


def marked_processes() -> Iterator[Sighting]:
    """Every living process of this user that carries our markers, but for this one."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            sighting = _look_at(int(name))
            if sighting is not None:
                yield sighting


def backends_of(node: str) -> list[Sighting]:
    """The backends of the node with this marker, the oldest first."""
    leaders = (each for each in marked_processes() if each.is_leader and each.marker.node == node)
    return sorted(leaders, key=lambda each: (each.started_ticks, each.pid))


def find(
    pid: int | None, started_ticks: int | None, candidates: Sequence[Sighting], marker: Marker
) -> Process | None:
    """The process of an instance: the one of its record, or else the first of ``candidates``.

    ``candidates`` carry the instance's marker. ``marker`` stands in for that of a recorded process
    which has overwritten its environment.
    """
    if pid is not None and started_ticks is not None and is_backend(pid):
        markers = [each.marker for each in candidates if each.pid == pid]
        process = take(pid, started_ticks, markers[0] if markers else marker)
        if process is not None:
            return process
    for sighting in candidates:
        process = take(sighting.pid, sighting.started_ticks, sighting.marker)
        if process is not None:
            return process
    return None


def take(pid: int, started_ticks: int, marker: Marker) -> Process | None:
    """A handle on the process that has this pid and start time; ``None`` if it is gone.

    Looked at before and after the pidfd is opened: the same start time both times means that the
    descriptor is of that process and not of a later one with its number.
    """
    if not _is(pid, started_ticks):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if not _is(pid, started_ticks):
        os.close(pidfd)
        return None
    return Process(pid, started_ticks, pidfd, marker)


def is_backend(pid: int) -> bool:
    """Whether ``pid`` could be a backend at all: a session's leader, run by our own user."""
    stat = read_stat(pid)
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return False
    return stat is not None and stat.session == pid and owner == os.getuid()


def end_stragglers(launch: str) -> int:
    """Kill what a launch has left behind outside its process group; returns how many.

    Blocks for as long as it takes to read the environment of every process of this user.
    """
    ended = 0
    if not launch:  # adopted by its number alone: its markers were overwritten
        return ended
    for sighting in marked_processes():
        if sighting.marker.launch != launch:
            continue
        process = take(sighting.pid, sighting.started_ticks, sighting.marker)
        if process is not None:
            try:
                signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
                ended += 1
            except ProcessLookupError:
                pass
            finally:
                process.close()
    if ended:
        logger.warning("killed %d processes that a backend had left behind", ended)
    return ended


def _look_at(pid: int) -> Sighting | None:
    stat = read_stat(pid)
    if stat is None or not stat.is_alive:
        return None
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # of another user, or gone
        return None
    if NODE_MARKER.encode() not in content:
        return None
    pairs = (entry.partition(b"=") for entry in content.split(b"\0"))
    environ = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    marker = Marker(
        node=environ.get(NODE_MARKER, ""),
        instance=environ.get(INSTANCE_MARKER, ""),
        launch=environ.get(LAUNCH_MARKER, ""),
        container=environ.get(CONTAINER_MARKER, ""),
    )
    return Sighting(pid, stat.started_ticks, stat.session == pid, marker)


def _is(pid: int, started_ticks: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.is_alive and stat.started_ticks == started_ticks
