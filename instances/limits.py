"""Resource limits of one instance's process: the ``limits`` object of its options.

There is no limit on address space (RLIMIT_AS): a mapped model file counts there in full, and GPU
drivers reserve far more than they use. No limit needs privileges: each can only lower what the
worker has.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from instances.errors import InvalidInstance
from instances.option_document import SHOWN_CHARACTERS, OptionDocument, refuse_unknown_names
from llamactl.core.errors import InvalidRequest

MAX_CPUS = 4096
_CPU_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)


def _canonical_cpus(value: object) -> str | None:
    """Return CPU ranges or a list of CPU numbers as sorted, merged ranges: ``0-3,8``."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, list) and all(type(cpu) is int for cpu in value):
        value = ",".join(str(cpu) for cpu in value[:MAX_CPUS])
    if not isinstance(value, str):
        raise InvalidRequest("limits.cpus must be a text like 0-3,8, or a list of CPU numbers")
    return _format_cpus(_parse_cpus(value))


def _parse_cpus(text: str) -> set[int]:
    cpus: set[int] = set()
    for part in text.split(",", MAX_CPUS):
        match = _CPU_RANGE.fullmatch(part.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else -1
        if not first <= last < MAX_CPUS:
            raise InvalidInstance(
                f"limits.cpus must be CPU numbers below {MAX_CPUS} and ranges of them, like"
                f" 0-3,8; got {text[:SHOWN_CHARACTERS]!r}"
            )
        cpus.update(range(first, last + 1))
    return cpus


def _format_cpus(cpus: set[int]) -> str:
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


Cpus = Annotated[
    str | None,
    BeforeValidator(_canonical_cpus),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "integer", "minimum": 0}},
            ]
        }
    ),
]
"""A set of CPUs as the kernel writes it: ``0-3,8``."""


class ResourceLimits(OptionDocument):
    """Resource limits of the process; a missing limit is the worker's own."""

    model_config = ConfigDict(extra="forbid")

    nice: Annotated[int, Field(ge=0, le=19)] | None = Field(
        default=None, description="CPU scheduling priority: 0 is the worker's own, 19 the lowest."
    )
    cpus: Cpus = Field(
        default=None,
        description="CPUs that the process may run on: ranges (`0-3,8`) or a list of numbers.",
    )
    open_files: Annotated[int, Field(ge=64, le=10_000_000)] | None = Field(
        default=None, description="Number of open file descriptors."
    )
    memory_mb: Annotated[int, Field(ge=16, le=100_000_000)] | None = Field(
        default=None,
        description="Private memory in MB (RLIMIT_DATA). Neither a mapped model file nor the"
        " memory of a GPU counts.",
    )
    core_dumps: bool | None = Field(
        default=None,
        description="Whether a crash writes a core dump. A core dump is as large as the model and"
        " contains prompts.",
    )
    oom_score_adj: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description="Kernel's preference for this process when memory runs out; 1000 is killed"
        " first.",
    )

    @property
    def cpu_set(self) -> frozenset[int]:
        return frozenset(_parse_cpus(self.cpus)) if self.cpus else frozenset()

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, raw: object) -> object:
        # A misspelt limit that is ignored would be no limit. Options are lenient, as in the seed.
        return refuse_unknown_names(cls, raw, "limits")
