"""Check of the backends' processes: each supervised, and known to the database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from instances.backends.registry import BACKENDS
from instances.supervisor.process.markers import MarkedProcess, marked_processes
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, warning

SUBJECT = "processes"
MAX_LISTED = 5


@dataclass(frozen=True)
class ProcessFacts:
    known: Mapping[int, str] | None
    """Pid → instance in the database; ``None`` if the database can't be read."""
    ours: Mapping[int, str] = field(default_factory=dict)
    """Pid → instance of this node's backends: session leaders with the node's marker."""
    marked: frozenset[int] = frozenset()
    """Pids of all processes with the node's marker."""
    foreign: Mapping[int, str] = field(default_factory=dict)
    """Pid → name of model servers that are not of this node."""
    zombies: tuple[int, ...] = ()
    """Pids of backends that exited and were not reaped by the worker or PID 1."""
    has_worker: bool = True
    guard_grace_seconds: float = 0.0
    has_guard: bool = True


def _is_guard(word: str) -> bool:
    # "orphan_guard" is the name in older releases; a guard outlives an upgrade.
    return word.endswith("orphans/program.py") or "orphan_guard" in word


def collect(
    lock_path: Path,
    known: Mapping[int, str] | None,
    *,
    worker: int | None,
    has_worker: bool,
    grace_seconds: float,
) -> ProcessFacts:
    """Collect the processes; ``worker`` is the pid of the holder of the node's lock."""
    sightings = list(marked_processes())
    here = [each for each in sightings if each.marker.node == str(lock_path)]
    guards = set()
    zombies = []
    servers = _process_names()
    foreign = {each.pid: _elsewhere(each) for each in sightings if each.is_leader}
    for process in psutil.process_iter(["name", "cmdline", "status", "ppid"]):
        info = process.info
        command = info["cmdline"] or []
        if info["status"] == psutil.STATUS_ZOMBIE:
            if info["ppid"] in {1, worker} and _is_of_a_backend(info["name"]):
                zombies.append(process.pid)
        elif str(lock_path) in command and any(map(_is_guard, command)):
            guards.add(process.pid)
        elif info["name"] in servers:
            foreign.setdefault(process.pid, info["name"])
    for each in here:
        foreign.pop(each.pid, None)
    return ProcessFacts(
        known,
        {each.pid: each.marker.instance.partition(":")[2] for each in here if each.is_leader},
        frozenset(each.pid for each in here),
        foreign,
        tuple(zombies),
        has_worker,
        grace_seconds,
        bool(guards),
    )


def diagnose(facts: ProcessFacts) -> Iterator[Diagnosis]:
    yield _diagnose_backends(facts)
    if facts.ours and facts.guard_grace_seconds and not facts.has_guard:
        yield warning(
            SUBJECT,
            "no orphan guard is running",
            "the worker starts one within seconds; if not, see the worker's log",
        )
    if facts.foreign:
        yield note(
            SUBJECT,
            f"model servers on this host that are not of this llamactl: {_listed(facts.foreign)}",
        )
    if facts.zombies:
        yield warning(
            SUBJECT,
            f"{len(facts.zombies)} exited backends were not reaped by PID 1"
            f" ({', '.join(map(str, facts.zombies[:MAX_LISTED]))})",
            "use an init process in the container: docker run --init",
        )


def _diagnose_backends(facts: ProcessFacts) -> Diagnosis:
    if facts.ours and not facts.has_worker:
        remedy = "start the worker, which adopts them"
        if facts.has_guard and facts.guard_grace_seconds:
            remedy += (
                f"; the orphan guard ends them after {facts.guard_grace_seconds:g} s without one"
                " (instances.orphan_grace)"
            )
        return problem(SUBJECT, f"no worker supervises {_listed(facts.ours)}", remedy)
    if orphans := _orphans(facts):
        return problem(
            SUBJECT,
            f"the database does not know {_listed(orphans)}",
            "a backend that is just starting is known within a second; to end others, restart the"
            " worker, which ends orphans",
        )
    count = len(facts.ours)
    return ok(SUBJECT, f"{count} backend{'' if count == 1 else 's'} of this node")


def lock_holder(path: Path) -> int | None:
    """Find the process that holds a file's lock in /proc/locks, without taking the lock."""
    with suppress(OSError):
        status = path.stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and "WRITE" in fields and device in fields:
                pid = int(fields[fields.index(device) - 1])
                return pid if pid > 0 else None
    return None


def _orphans(facts: ProcessFacts) -> dict[int, str]:
    known = facts.known
    if known is None:
        return {}
    return {pid: name for pid, name in facts.ours.items() if pid not in known}


def _elsewhere(process: MarkedProcess) -> str:
    return f"{process.marker.instance.partition(':')[2] or 'a backend'} of another llamactl"


def _process_names() -> frozenset[str]:
    return frozenset().union(*(backend.process_names for backend in BACKENDS.values()))


def _is_of_a_backend(name: str | None) -> bool:
    return bool(name) and any(str(name).startswith(server[:15]) for server in _process_names())


def _listed(processes: Mapping[int, str]) -> str:
    shown = [f"{name} (process {pid})" for pid, name in sorted(processes.items())[:MAX_LISTED]]
    more = len(processes) - MAX_LISTED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
