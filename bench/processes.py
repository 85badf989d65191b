"""Whose processes used how much CPU time between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter

import psutil

Groups = Mapping[str, tuple[psutil.Process, ...]]
"""What the processes are to the measurement ("proxy", "backend", "rest") -> the processes."""


def listeners(port: int) -> tuple[psutil.Process, ...]:
    """The local processes that listen on a TCP port; more than one when workers share it.

    Empty when there is none, or when it belongs to another user.
    """
    pids = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr[1:] == (port,)  # (address, port); empty for a socket without one
        and connection.pid is not None
    }
    return tuple(psutil.Process(pid) for pid in sorted(pids))


def tree(root: psutil.Process) -> tuple[psutil.Process, ...]:
    """A process and all its descendants; empty when it is gone."""
    try:
        return (root, *root.children(recursive=True))
    except psutil.NoSuchProcess:
        return ()


@dataclass(frozen=True)
class CpuSample:
    """CPU seconds used so far: by each group, and by the whole machine; `at` is a clock time."""

    at: float
    groups: dict[str, float]
    machine: float
    stolen: float

    def cores_since(self, earlier: CpuSample) -> dict[str, float]:
        """Cores kept busy since then: ``<group>_cores``, ``machine_cores``, ``stolen_cores``.

        Stolen is what the hypervisor gave to others while we wanted to run.
        """
        seconds = self.at - earlier.at
        cores = {
            f"{name}_cores": (used - earlier.groups[name]) / seconds
            for name, used in self.groups.items()
        }
        cores["machine_cores"] = (self.machine - earlier.machine) / seconds
        cores["stolen_cores"] = (self.stolen - earlier.stolen) / seconds
        return cores


def sample(groups: Groups) -> CpuSample:
    """The CPU time of these processes and of the machine, now (to 10 ms)."""
    machine = psutil.cpu_times()
    busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0)
    # Linux counts a guest's time in user and nice already.
    busy -= getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
    stolen = getattr(machine, "steal", 0.0)
    return CpuSample(
        at=perf_counter(),
        groups={name: sum(map(_used, processes)) for name, processes in groups.items()},
        machine=busy - stolen,
        stolen=stolen,
    )


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def end(processes: Iterable[psutil.Process], *, grace_seconds: float) -> None:
    """End what is left of these processes: SIGTERM, then SIGKILL. Never another with their pid."""
    left = [process for process in processes if process.is_running()]
    for process in left:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _gone, alive = psutil.wait_procs(left, timeout=grace_seconds)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=grace_seconds)
