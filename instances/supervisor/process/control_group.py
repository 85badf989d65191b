"""Control group (cgroup v2) of one launch.

A process inherits the control group of its parent, and keeps it when it calls setsid, is adopted by
init, or overwrites its environment (``setproctitle``, as vLLM's engine processes do). A worker may
make groups as root, or below a group that was delegated to it (systemd's ``Delegate=yes``). The
groups are made below the worker's own, so that limits of its service apply to backends too. No
controller is enabled in them: they group processes and limit nothing.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from instances.supervisor.process.markers import marked_process
from instances.supervisor.process.process_table import family_of, read_younger

logger = logging.getLogger(__name__)

PREFIX = "llamactl-"
MOVE_ROUNDS = 5
"""A child may fork while it is moved; what it forks afterwards is in the group."""


class ControlGroup:
    """A directory in the file system of control groups, with the processes of one launch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> None:
        """Move a process into the group. Raises OSError."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """Return the processes of the group and of the groups below; empty if it is gone."""
        found: set[int] = set()
        for directory, _, _ in os.walk(self.path):
            with suppress(OSError):
                text = Path(directory, "cgroup.procs").read_text()
                found |= {int(pid) for pid in text.split()}
        return found - {0}  # 0: a process outside of the worker's namespace of pids

    def kill(self) -> None:
        """Send SIGKILL to all processes of the group, also to processes forked at this moment.

        Linux before 5.14 has no call for that: a process that is forked meanwhile is left.
        """
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:
            self._kill_each()

    def _kill_each(self) -> None:
        for pid in self.pids():
            with suppress(OSError):  # gone; or of another user
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in self.pids():  # else a later process has the pid by now
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)

    def remove(self) -> bool:
        """Remove the group if it is empty; returns whether it is gone."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            with suppress(OSError):  # EBUSY: a process of the group is still ending
                os.rmdir(directory)
        return not self.path.exists()


def create_for(launch: str, pid: int) -> ControlGroup | None:
    """Make the group of a launch, with a new process; ``None`` where llamactl may not.

    The children that the process has forked by now are moved too.
    """
    own = own_group()
    if own is None or not launch:
        return None
    group = ControlGroup(own / f"{PREFIX}{launch}")
    try:
        group.path.mkdir(mode=0o700)
    except OSError as error:
        logger.debug("no control group for process %d: %s", pid, error)
        return None
    try:
        group.add(pid)
    except OSError as error:  # the process has ended; or llamactl may not move it
        logger.debug("process %d stays in the control group of the worker: %s", pid, error)
        group.remove()
        return None
    _add_children(group, pid, launch)
    return group


def _add_children(group: ControlGroup, leader: int, launch: str) -> None:
    """Add the processes that were forked before the leader was in the group.

    A child of a parent that has ended is found by its marker: it had no time to overwrite that.
    The leader is not reaped yet, so no later session has its number.
    """
    for _ in range(MOVE_ROUNDS):
        table = read_younger(leader)
        roots = (
            (pid, stat.started_ticks)
            for pid, stat in table.items()
            if stat.session == leader or _is_marked(pid, launch)
        )
        missing = {pid for pid, _ in family_of(roots, table)} - group.pids()
        if not missing:
            return
        for pid in missing:
            with suppress(OSError):
                group.add(pid)


def _is_marked(pid: int, launch: str) -> bool:
    found = marked_process(pid)
    return found is not None and found.marker.launch == launch


def group_of(pid: int, launch: str) -> ControlGroup | None:
    """Return the group of a launch, where ``pid`` is in it or in a group below."""
    if not launch:
        return None
    mounted = _mounted_at()
    path = _path_of(pid)
    if mounted is None or path is None:
        return None
    names = path.split("/")
    if PREFIX + launch not in names:
        return None
    names = names[: names.index(PREFIX + launch) + 1]
    return ControlGroup(_below(mounted, "/".join(names)))


def own_group_of(launch: str) -> ControlGroup | None:
    """Return the group of a launch below this worker's own, if it is there."""
    own = own_group()
    path = own / f"{PREFIX}{launch}" if own is not None and launch else None
    return ControlGroup(path) if path is not None and path.is_dir() else None


def is_in_group_of(pid: int, launch: str) -> bool:
    """Whether the process is in the group of a launch, wherever that is."""
    return PREFIX + launch in (_path_of(pid) or "").split("/")


def own_group() -> Path | None:
    """Return the directory of this process's group; ``None`` without cgroup v2."""
    mounted, path = _mounted_at(), _path_of(os.getpid())
    if mounted is None or path is None or ".." in path.split("/"):
        return None
    return _below(mounted, path)


def _below(mounted: tuple[str, Path], path: str) -> Path:
    root, point = mounted
    return point / path.removeprefix(root.rstrip("/")).lstrip("/")


def _mounted_at() -> tuple[str, Path] | None:
    """Return which group is mounted, and where (/proc/self/mountinfo, proc(5))."""
    try:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return None
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            fields = before.split(" ")
            return fields[3], Path(fields[4])
    return None


def _path_of(pid: int) -> str | None:
    """Return the process's group in the hierarchy of version 2, which has the number 0."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(errors="surrogateescape")
    except OSError:
        return None
    lines = (line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::"))
    return next(lines, None)
