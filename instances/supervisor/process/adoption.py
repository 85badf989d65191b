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

from instances.supervisor.process.control_group import (
    ControlGroup,
    group_of,
    is_in_group_of,
    own_group_of,
)
from instances.supervisor.process.markers import (
    MarkedProcess,
    Marker,
    is_own_user,
    marked_process,
    marked_processes,
)
from instances.supervisor.process.pidfd import Process, kill
from instances.supervisor.process.process_table import Identity, family_of, read_stat, read_table

logger = logging.getLogger(__name__)

EMPTY_SECONDS = 2.0
"""Longest wait for killed processes: one in an uninterruptible call ends later."""
EMPTY_POLL_SECONDS = 0.01


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


def other_node_of(pid: int, node: str) -> str | None:
    """Return the node in the marker of a session, if it is another one than ``node``.

    The leader may have overwritten its environment; then the markers of its children count.
    ``None`` if no process of the session has a readable marker.
    """
    leader = marked_process(pid)
    if leader is not None and leader.marker.node == node:
        return None
    nodes = [
        found.marker.node
        for found in marked_processes()
        if (stat := read_stat(found.pid)) is not None and stat.session == pid
    ]
    return None if node in nodes else next(iter(nodes), None)


def kill_stragglers(
    launch: str,
    group: ControlGroup | None = None,
    noted: Iterable[Identity] = (),
    *,
    is_all_in_group: bool = False,
) -> int:
    """Kill the processes that a launch has left behind; returns their number.

    A straggler is a process of the control group, one of the ``noted`` processes, or carries the
    launch's marker. The markers are read unless the group is known to have all processes: that
    takes 75 µs for each process of the machine.
    """
    killed = sum(kill(pid, ticks) for pid, ticks in noted)
    if launch and not is_all_in_group:  # no launch: adopted by pid alone, with other markers
        killed += _kill_all(_marked_with(launch))
    if group is not None:
        killed += len(group.pids())
        _empty(group)
    if killed:
        logger.warning("killed %d processes that a backend had left behind", killed)
    return killed


def kill_lost(launch: str, noted: Iterable[Identity], node: str) -> int:
    """Kill the rest of a launch after the end of its leader without a worker; returns the number.

    Blocks while it looks at every process: the group of the launch may be anywhere, below the
    group of an earlier worker. A launch of another node's worker is left alone: a worker with
    another data directory on the same database reads its id in the row, and its backends run.
    """
    killed = 0
    if launch:
        launched = (each.marker for each in marked_processes() if each.marker.launch == launch)
        other = next((marker.node for marker in launched if marker.node != node), None)
        if other is not None:
            logger.warning("launch %s belongs to the worker that locks %s", launch, other)
            return 0
        killed = _kill_all(_grouped_in(launch))
    return killed + kill_stragglers(launch, own_group_of(launch), family_of(noted, read_table()))


def _kill_all(found: Iterable[Identity]) -> int:
    return sum(kill(pid, ticks) for pid, ticks in found)


def _marked_with(launch: str) -> Iterator[Identity]:
    """Yield the processes of this user that carry a launch's marker."""
    for each in marked_processes():
        if each.marker.launch == launch:
            yield each.pid, each.started_ticks


def _grouped_in(launch: str) -> Iterator[Identity]:
    """Yield the processes of this user in a launch's control group, wherever that is."""
    for pid, stat in read_table().items():
        if is_in_group_of(pid, launch) and is_own_user(pid):
            yield pid, stat.started_ticks


def _empty(group: ControlGroup) -> None:
    """Kill a group's processes, and remove the group once they are gone."""
    deadline = time.monotonic() + EMPTY_SECONDS
    group.kill()
    while not group.remove() and time.monotonic() < deadline:
        time.sleep(EMPTY_POLL_SECONDS)
        group.kill()


def _is_same(pid: int, started_ticks: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.is_alive and stat.started_ticks == started_ticks
