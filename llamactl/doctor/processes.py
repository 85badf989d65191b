"""Which backends run here, and does each belong to somebody?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from instances.backends import BACKENDS
from instances.supervisor.process.adoption import Sighting, marked_processes
from llamactl.doctor.findings import Diagnosis, note, ok, problem, warning

SUBJECT = "processes"
SHOWN = 5


@dataclass(frozen=True)
class ProcessFacts:
    known: Mapping[int, str] | None
    """Pid → instance, as the database has it; ``None`` where it can't be asked."""
    ours: Mapping[int, str] = field(default_factory=dict)
    """Pid → instance, of those that carry the node's marker and lead a session."""
    marked: frozenset[int] = frozenset()
    """All that carry the node's marker."""
    foreign: Mapping[int, str] = field(default_factory=dict)
    """Pid → name, of model servers that are not the node's."""
    zombies: tuple[int, ...] = ()
    """Dead ones that nobody has waited for, of the worker or of PID 1."""
    has_worker: bool = True
    guard_grace_seconds: float = 0.0
    has_guard: bool = True


def _is_guard(word: str) -> bool:
    # The second name is the one before the program moved; a guard outlives an upgrade.
    return word.endswith("orphans/program.py") or "orphan_guard" in word


def look(
    lock_path: Path,
    known: Mapping[int, str] | None,
    *,
    worker: int | None,
    has_worker: bool,
    grace_seconds: float,
) -> ProcessFacts:
    """``worker``: the process that holds the node's lock, where the kernel says so."""
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


def judge(facts: ProcessFacts) -> Iterator[Diagnosis]:
    if facts.ours and not facts.has_worker:
        yield problem(
            SUBJECT,
            f"no worker looks after {_listed(facts.ours)}",
            "start the worker: it adopts them"
            + (
                f". Without one they are ended after {facts.guard_grace_seconds:g} s"
                " (instances.orphan_grace)"
                if facts.has_guard and facts.guard_grace_seconds
                else ""
            ),
        )
    elif strays := _strays(facts):
        yield problem(
            SUBJECT,
            f"the database does not know {_listed(strays)}",
            "one that is just being started is known in a second; of others, restart the worker,"
            " which ends what belongs to nobody",
        )
    else:
        count = len(facts.ours)
        yield ok(SUBJECT, f"{count} backend{'' if count == 1 else 's'} of this node")
    if facts.ours and facts.guard_grace_seconds and not facts.has_guard:
        yield warning(
            SUBJECT,
            "no orphan guard watches over them",
            "the worker starts another in a few seconds; if not, its log says why",
        )
    if facts.foreign:
        yield note(
            SUBJECT, f"not this llamactl's, but they use the same host: {_listed(facts.foreign)}"
        )
    if facts.zombies:
        yield warning(
            SUBJECT,
            f"{len(facts.zombies)} dead backends were not cleaned up by PID 1"
            f" ({', '.join(map(str, facts.zombies[:SHOWN]))})",
            "in a container use an init: docker run --init",
        )


def lock_holder(path: Path) -> int | None:
    """The process that holds the lock of the file, by the kernel's list; nothing is locked."""
    with suppress(OSError):
        status = path.stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and "WRITE" in fields and device in fields:
                pid = int(fields[fields.index(device) - 1])
                return pid if pid > 0 else None
    return None


def _strays(facts: ProcessFacts) -> dict[int, str]:
    known = facts.known
    if known is None:
        return {}
    return {pid: name for pid, name in facts.ours.items() if pid not in known}


def _elsewhere(sighting: Sighting) -> str:
    return f"{sighting.marker.instance.partition(':')[2] or 'a backend'} of another llamactl"


def _process_names() -> frozenset[str]:
    return frozenset().union(*(backend.process_names for backend in BACKENDS.values()))


def _is_of_a_backend(name: str | None) -> bool:
    return bool(name) and any(str(name).startswith(server[:15]) for server in _process_names())


def _listed(processes: Mapping[int, str]) -> str:
    shown = [f"{name} (process {pid})" for pid, name in sorted(processes.items())[:SHOWN]]
    more = len(processes) - SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
