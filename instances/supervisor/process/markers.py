"""Markers of a launch: variables in the environment of its processes.

A child inherits them from its parent. A program that sets its title may overwrite them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from instances.supervisor.process.process_table import read_stat

NODE_MARKER = "LLAMACTL_NODE"
INSTANCE_MARKER = "LLAMACTL_INSTANCE"
LAUNCH_MARKER = "LLAMACTL_LAUNCH"
CONTAINER_MARKER = "LLAMACTL_CONTAINER"


@dataclass(frozen=True)
class Marker:
    """Variables in a backend's environment, by which a later worker identifies it."""

    node: str
    """Path of the node's lock file; the worker that holds the lock owns the process."""
    instance: str
    """``<id>:<name>``: a name alone may belong to another instance by now."""
    launch: str
    container: str = ""

    def to_environment(self) -> dict[str, str]:
        environment = {
            NODE_MARKER: self.node,
            INSTANCE_MARKER: self.instance,
            LAUNCH_MARKER: self.launch,
        }
        return environment | ({CONTAINER_MARKER: self.container} if self.container else {})


@dataclass(frozen=True)
class MarkedProcess:
    """A process with llamactl's markers in its environment, at the time of the scan."""

    pid: int
    started_ticks: int
    is_leader: bool
    """Whether the process leads a session, as a backend does and its children rarely do."""
    marker: Marker


def marked_processes() -> Iterator[MarkedProcess]:
    """Yield every other living process of this user that carries the markers.

    A process whose program is just being loaded (execve) has no environment until that is done. It
    is read once more after all others.
    """
    loading = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        if pid == os.getpid():
            continue
        found = _read_process(pid)
        if isinstance(found, MarkedProcess):
            yield found
        elif found is _Unmarked.NO_ENVIRONMENT:
            loading.append(pid)
    for pid in loading:
        again = marked_process(pid)
        if again is not None:
            yield again


def marked_process(pid: int) -> MarkedProcess | None:
    """Return the process, if it lives, is this user's and carries the markers."""
    found = _read_process(pid)
    return found if isinstance(found, MarkedProcess) else None


class _Unmarked(Enum):
    NO_ENVIRONMENT = auto()
    OTHER = auto()


_KTHREADD = 2
"""Parent of the kernel's threads, which have no environment either."""


def _read_process(pid: int) -> MarkedProcess | _Unmarked:
    stat = read_stat(pid)
    if stat is None or not stat.is_alive or not is_own_user(pid):
        return _Unmarked.OTHER
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # not dumpable, or gone
        return _Unmarked.OTHER
    if not content and stat.parent != _KTHREADD:
        return _Unmarked.NO_ENVIRONMENT
    if NODE_MARKER.encode() not in content:
        return _Unmarked.OTHER
    pairs = (entry.partition(b"=") for entry in content.split(b"\0"))
    environ = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    if NODE_MARKER not in environ:  # a variable whose value or name holds the marker's name
        return _Unmarked.OTHER
    marker = Marker(
        node=environ.get(NODE_MARKER, ""),
        instance=environ.get(INSTANCE_MARKER, ""),
        launch=environ.get(LAUNCH_MARKER, ""),
        container=environ.get(CONTAINER_MARKER, ""),
    )
    return MarkedProcess(pid, stat.started_ticks, stat.session == pid, marker)


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
