"""What may one instance's process have of its host?

The ``limits`` object of the options document. There is no limit on address space (RLIMIT_AS): a
mapped model file counts there in full, and GPU drivers reserve far more than they use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from instances.errors import InvalidInstance
from llamactl.core.errors import InvalidRequest

MOST_CPUS = 4096
_CPU_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)
_RANGES = {
    "nice": (0, 19),
    "open_files": (64, 10_000_000),
    "memory_mb": (16, 100_000_000),
    "oom_score_adj": (0, 1000),
}
"""Field → least and most. Nothing that would need privileges: only less than the worker has."""


@dataclass(frozen=True)
class ResourceLimits:
    """What was said; ``None`` is as the worker has it."""

    nice: int | None = None
    """How readily it lets others have the CPU; 19 most."""
    cpus: str | None = None
    """The CPUs it may run on, as the kernel writes them: ``0-3,8``."""
    open_files: int | None = None
    memory_mb: int | None = None
    """Memory of its own (RLIMIT_DATA): not a mapped model file, and nothing on a GPU."""
    core_dumps: bool | None = None
    """A core dump is as large as the model, and has prompts in it."""
    oom_score_adj: int | None = None
    """How soon the kernel picks it when memory runs out; 1000 first."""

    def to_document(self) -> dict[str, object]:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def cpu_set(self) -> frozenset[int]:
        return frozenset(_parse_cpus(self.cpus)) if self.cpus else frozenset()


def parse_limits(raw: object) -> ResourceLimits:
    """The ``limits`` of an options document. Raises InvalidRequest or InvalidInstance."""
    if raw is None:
        return ResourceLimits()
    if not isinstance(raw, Mapping):
        raise InvalidRequest('limits must be an object, such as {"nice": 10}')
    known = [field.name for field in fields(ResourceLimits)]
    for name in raw:
        if name not in known:
            raise InvalidInstance(
                f"limits: {str(name)[:80]!r} is not known; there are {', '.join(known)}"
            )
    return ResourceLimits(
        nice=_number(raw, "nice"),
        cpus=_cpus(raw.get("cpus")),
        open_files=_number(raw, "open_files"),
        memory_mb=_number(raw, "memory_mb"),
        core_dumps=_switch(raw, "core_dumps"),
        oom_score_adj=_number(raw, "oom_score_adj"),
    )


def _number(raw: Mapping[str, object], name: str) -> int | None:
    value = raw.get(name)
    least, most = _RANGES[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"limits.{name} must be a whole number")
    if not least <= value <= most:
        raise InvalidInstance(
            f"limits.{name} must be from {least} to {most}, got {str(value)[:80]}"
        )
    return value


def _switch(raw: Mapping[str, object], name: str) -> bool | None:
    value = raw.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"limits.{name} must be true or false")
    return value


def _cpus(value: object) -> str | None:
    """A text of ranges or a list of numbers, as a text of ranges."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, list):
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in value):
            raise InvalidRequest("limits.cpus must be a text like 0-3,8, or a list of CPU numbers")
        value = ",".join(str(each) for each in value[:MOST_CPUS])
    if not isinstance(value, str):
        raise InvalidRequest("limits.cpus must be a text like 0-3,8, or a list of CPU numbers")
    return _shown(_parse_cpus(value))


def _parse_cpus(text: str) -> set[int]:
    cpus: set[int] = set()
    for part in text.split(",", MOST_CPUS):
        match = _CPU_RANGE.fullmatch(part.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else -1
        if not first <= last < MOST_CPUS:
            raise InvalidInstance(
                f"limits.cpus must be CPU numbers below {MOST_CPUS} and ranges of them, like"
                f" 0-3,8; got {text[:80]!r}"
            )
        cpus.update(range(first, last + 1))
    return cpus


def _shown(cpus: set[int]) -> str:
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
