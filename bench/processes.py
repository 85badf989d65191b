"""The resources of known processes: CPU time between two moments, memory, files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

import psutil

LISTENING = "0A"
"""TCP_LISTEN, as /proc/net/tcp writes it."""

SAMPLE_SECONDS = 0.2
AT_REST_CORES = 0.1

Groups = Mapping[str, tuple[psutil.Process, ...]]
"""Role in the measurement ("proxy", "backend", "rest") -> the processes."""


def listeners(port: int) -> tuple[psutil.Process, ...]:
    """The local processes that listen on a TCP port; more than one when workers share a socket.

    Empty when there is none, or when it belongs to another user. (psutil's own list of connections
    names one process for a socket that several have.)
    """
    sockets = _listening_sockets(port)
    return tuple(process for process in psutil.process_iter() if _has_one_of(process, sockets))


def _listening_sockets(port: int) -> set[str]:
    """As the links in /proc/<pid>/fd name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _has_one_of(process: psutil.Process, sockets: set[str]) -> bool:
    directory = f"/proc/{process.pid}/fd"
    try:
        return any(os.readlink(f"{directory}/{name}") in sockets for name in os.listdir(directory))
    except OSError:  # it has ended meanwhile, or is another user's
        return False


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

        Stolen cores are the time that the hypervisor gave to others while we were ready to run.
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


def await_rest(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Wait until the processes use less than a tenth of a core; return whether they did in time.

    A slow system has requests in its queue when its clients leave. Worked off in the turn of the
    next one, they would be measured as its burden.
    """
    groups = {"watched": tuple(processes)}
    end = perf_counter() + seconds
    while perf_counter() < end:
        before = sample(groups)
        sleep(SAMPLE_SECONDS)
        if sample(groups).cores_since(before)["watched_cores"] < AT_REST_CORES:
            return True
    return False


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Memory that these processes hold now (RSS; pages that they share count for each)."""
    return sum(map(_resident, processes))


def _resident(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return resident


def allow_many_files() -> None:
    """Raise this process's limit of open files, and that of all that it starts.

    A connection is a file; the usual soft limit of 1,024 ends at 500 streams through a proxy.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def end(processes: Iterable[psutil.Process], *, grace_seconds: float) -> None:
    """End the remaining processes: SIGTERM, then SIGKILL. A reused pid is left alone."""
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
