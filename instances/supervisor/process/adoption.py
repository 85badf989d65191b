"""Adoption: identification of backends that an earlier worker started.

A process is identified by its pid and start time in the database, and by the markers in its
environment. Neither is enough alone: a worker that was killed right after a start has written
nothing, and some programs overwrite their environment to set their title.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from instances.supervisor.process.control_group import (
    ControlGroup,
    group_of,
    is_in_group_of,
    own_group_of,
)
from instances.supervisor.process.pidfd import (
    CONTAINER_MARKER,
    INSTANCE_MARKER,
    LAUNCH_MARKER,
    NODE_MARKER,
    Marker,
    Process,
    kill,
)
from instances.supervisor.process.process_table import Identity, family_of, read_stat, read_table

logger = logging.getLogger(__name__)

EMPTY_SECONDS = 2.0
"""Longest wait for killed processes: one in an uninterruptible call ends later."""
EMPTY_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class MarkedProcess:
    """A process with llamactl's markers in its environment, at the time of the scan."""

    pid: int
    started_ticks: int
    is_leader: bool
    """Whether the process leads a session, as a backend does and its children rarely do."""
    marker: Marker


def marked_processes() -> Iterator[MarkedProcess]:
    """Yield every other living process of this user that carries the markers."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            found = _inspect(int(name))
            if found is not None:
                yield found


def backends_of(node: str) -> list[MarkedProcess]:
    """List the backends of the node with this marker, oldest first."""
    leaders = (each for each in marked_processes() if each.is_leader and each.marker.node == node)
    return sorted(leaders, key=lambda each: (each.started_ticks, each.pid))


def find_process(
    pid: int | None, started_ticks: int | None, candidates: Sequence[MarkedProcess], marker: Marker
) -> Process | None:
    """Open the process of an instance: the one in its row, or else the first of ``candidates``.

    ``candidates`` carry the instance's marker. ``marker`` replaces the marker of a process in the
    row that has overwritten its environment. A process in the row that carries another node's
    marker stays with the worker of that node.
    """
    if pid is not None and started_ticks is not None and is_backend(pid):
        markers = [each.marker for each in candidates if each.pid == pid]
        process = open_process(pid, started_ticks, markers[0] if markers else marker)
        other = other_node_of(pid, marker.node) if process is not None else None
        if process is not None and other is None:
            return process
        if process is not None:
            logger.warning("process %d belongs to the worker that locks %s", pid, other)
            process.close()
    for each in candidates:
        process = open_process(each.pid, each.started_ticks, each.marker)
        if process is not None:
            return process
    return None


def open_process(pid: int, started_ticks: int, marker: Marker) -> Process | None:
    """Open the process with this pid and start time; ``None`` if it is gone.

    The start time is compared before and after the pidfd is opened: if it is the same both times,
    the descriptor belongs to that process and not to a later one with the same pid.
    """
    if not _is_same(pid, started_ticks):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if not _is_same(pid, started_ticks):
        os.close(pidfd)
        return None
    return Process(pid, started_ticks, pidfd, marker, group_of(pid, marker.launch))


def is_backend(pid: int) -> bool:
    """Whether ``pid`` may be a backend: the leader of a session, and of the worker's own user."""
    stat = read_stat(pid)
    return stat is not None and stat.session == pid and is_own_user(pid)


def is_own_user(pid: int) -> bool:
    """Whether the process runs as the worker's user, by its real and effective ids.

    The effective id alone proves nothing: anybody can start a setuid program of root with any
    environment.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return False
    uids = next((line.split()[1:] for line in status.splitlines() if line[:4] == b"Uid:"), [])
    return bool(uids) and set(map(int, uids)) == {os.getuid()}


def other_node_of(pid: int, node: str) -> str | None:
    """Return the node in the marker of a session, if it is another one than ``node``.

    The leader may have overwritten its environment; then the markers of its children count.
    ``None`` if no process of the session has a readable marker.
    """
    nodes = [
        found.marker.node
        for found in marked_processes()
        if (stat := read_stat(found.pid)) is not None and stat.session == pid
    ]
    return None if node in nodes else next(iter(nodes), None)


def kill_stragglers(
    launch: str, group: ControlGroup | None = None, noted: Iterable[Identity] = ()
) -> int:
    """Kill the processes that a launch has left behind; returns their number.

    A straggler is found by its marker, by its control group, or among the ``noted`` processes.
    Blocks while it reads the environment of every process of this user.
    """
    killed = sum(kill(pid, ticks) for pid, ticks in noted)
    if launch:  # else adopted by pid alone: its markers were overwritten
        killed += sum(kill(pid, ticks) for pid, ticks in _members_of(launch))
    if group is not None:
        _empty(group)
    if killed:
        logger.warning("killed %d processes that a backend had left behind", killed)
    return killed


def kill_lost(launch: str, noted: Iterable[Identity], node: str) -> int:
    """Kill what is left of a launch whose leader ended without a worker; returns the number.

    A launch of another node's worker is left alone: a worker with another data directory on the
    same database reads its id in the row, and its backends run.
    """
    if launch:
        launched = (each.marker for each in marked_processes() if each.marker.launch == launch)
        other = next((marker.node for marker in launched if marker.node != node), None)
        if other is not None:
            logger.warning("launch %s belongs to the worker that locks %s", launch, other)
            return 0
    return kill_stragglers(launch, own_group_of(launch), family_of(noted, read_table()))


def _members_of(launch: str) -> Iterator[Identity]:
    """Yield the processes of this user that carry a launch's marker or are in its group."""
    for each in marked_processes():
        if each.marker.launch == launch:
            yield each.pid, each.started_ticks
    for pid, stat in read_table().items():
        if is_in_group_of(pid, launch) and is_own_user(pid):
            yield pid, stat.started_ticks


def _empty(group: ControlGroup) -> None:
    """Kill a group's processes, and remove the group once they are gone."""
    deadline = time.monotonic() + EMPTY_SECONDS
    group.kill()
    while not group.remove() and time.monotonic() < deadline:
        time.sleep(EMPTY_POLL_SECONDS)


def _inspect(pid: int) -> MarkedProcess | None:
    stat = read_stat(pid)
    if stat is None or not stat.is_alive or not is_own_user(pid):
        return None
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # not dumpable, or gone
        return None
    if NODE_MARKER.encode() not in content:
        return None
    pairs = (entry.partition(b"=") for entry in content.split(b"\0"))
    environ = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    if NODE_MARKER not in environ:  # a variable whose value or name holds the marker's name
        return None
    marker = Marker(
        node=environ.get(NODE_MARKER, ""),
        instance=environ.get(INSTANCE_MARKER, ""),
        launch=environ.get(LAUNCH_MARKER, ""),
        container=environ.get(CONTAINER_MARKER, ""),
    )
    return MarkedProcess(pid, stat.started_ticks, stat.session == pid, marker)


def _is_same(pid: int, started_ticks: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.is_alive and stat.started_ticks == started_ticks
