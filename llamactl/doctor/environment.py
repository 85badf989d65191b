"""Check of the variables that backends inherit from the worker's environment.

A variable such as ``LLAMA_ARG_CTX_SIZE`` or ``CUDA_VISIBLE_DEVICES`` changes every instance, and no
page of the admin shows where it was set. Names alone are shown: values may be secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from instances.backends.environment import clean_environment
from instances.backends.registry import BACKENDS
from llamactl.doctor.diagnosis import Diagnosis, note, ok, warning

SUBJECT = "environment"
MAX_LISTED = 8
_FLAG = re.compile(r"\w+_ARG_\w+")
"""A flag of a backend's program as a variable."""
_ORDINARY = re.compile(r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|TMPDIR|LC_\w+|XDG_\w+")


@dataclass(frozen=True)
class EnvironmentFacts:
    owner: str
    """Process of this environment, for the message."""
    inherited: frozenset[str] = frozenset()
    """Names that backends inherit, without those that every process has."""
    withheld: frozenset[str] = frozenset()
    """Names for a backend's program that llamactl does not pass on."""


def collect(worker: int | None) -> EnvironmentFacts:
    """Collect the names from the worker's environment, or from this process's without a worker."""
    if worker is not None:
        with suppress(OSError):  # another user's worker
            return facts_of(_environment_of(worker), f"the worker (process {worker})")
    return facts_of(_environment_of(os.getpid()), "this shell")


def _environment_of(pid: int) -> dict[str, str]:
    content = Path(f"/proc/{pid}/environ").read_bytes()
    pairs = (os.fsdecode(each).partition("=") for each in content.split(b"\0") if each)
    return {name: text for name, _, text in pairs}


def facts_of(environ: Mapping[str, str], owner: str) -> EnvironmentFacts:
    passed = environ.keys() & clean_environment(environ).keys()
    flags = {name for backend in BACKENDS.values() for name in backend.flag_variables}
    return EnvironmentFacts(
        owner,
        frozenset(name for name in passed if not _ORDINARY.fullmatch(name)),
        frozenset(
            name for name in environ.keys() - passed if name in flags or _FLAG.fullmatch(name)
        ),
    )


def diagnose(facts: EnvironmentFacts) -> Iterator[Diagnosis]:
    flags = sorted(name for name in facts.inherited if _FLAG.fullmatch(name))
    others = sorted(facts.inherited.difference(flags))
    if flags:
        yield warning(
            SUBJECT,
            f"every instance inherits flags from {facts.owner}: {_some(flags)}",
            "unset them there, and set the options of the instances, where they can be seen",
        )
    if others:
        yield note(
            SUBJECT,
            f"every instance inherits {_some(others)} from {facts.owner}",
            "backends.*.environment, or an instance's environment, overrides them",
        )
    if facts.withheld:
        yield note(
            SUBJECT,
            f"{facts.owner} has {_some(sorted(facts.withheld))}, which no instance inherits",
            "set them in backends.*.environment, or in an instance's environment",
        )
    if not facts.inherited and not facts.withheld:
        yield ok(SUBJECT, f"no variable of {facts.owner} changes backends")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
