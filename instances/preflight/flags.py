"""Check of an instance's flags against the flags that its program lists.

A flag that the help does not list may exist all the same, so a finding about it is a warning. A
value for a flag that takes none, or no value for a flag that needs one, is an error: every program
refuses that.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import cast

from instances.backends.base import LOOPBACK, Backend
from instances.backends.extra_args import ExtraValue, extra_spelling
from instances.backends.flags import Flag, Setting
from instances.backends.values import json_problem
from instances.preflight.findings import PreflightFinding, error, warning
from instances.preflight.help_text import Help, ListedFlag

MAX_FLAGS = 1000
"""Flags that are checked; ``extra_args`` may hold any number."""
MAX_SUGGESTIONS = 20
"""Flags for which a similar name is searched, which takes milliseconds each."""
_SIMILAR = 0.7


@dataclass(frozen=True)
class _GivenFlag:
    """A flag on the command line that the program would get."""

    field: str
    spelling: str
    has_value: bool
    is_bare: bool
    """Both are true of a flag that is given several times, with a value and without."""
    flag: Flag | None = None


def check_flags(
    backend: Backend, options: Mapping[str, object], listed: Help, program: str
) -> list[PreflightFinding]:
    """Check the flags of ``options`` (in normal form) against the program's help.

    ``program`` is the program's name in messages.
    """
    findings = []
    suggestions = 0
    for given in islice(_given_flags(backend, options), MAX_FLAGS):
        entry = _entry(given, listed, is_argparse=backend.table.equals)
        if entry is not None:
            if wrong := _check_value(given, entry, program):
                findings.append(wrong)
            continue
        suggestion = ""
        if suggestions < MAX_SUGGESTIONS:
            suggestions += 1
            suggestion = _suggestion(given, listed)
        findings.append(
            warning(given.field, f"{given.spelling} is not in the help of {program}", suggestion)
        )
    return findings


def check_json(backend: Backend, options: Mapping[str, object]) -> list[PreflightFinding]:
    """Warn of text that is no JSON, for flags that some versions of the program take JSON for."""
    return [
        warning(
            f"backend_options.{name}",
            f"{flag.spelling} is given text that is no JSON: {problem}",
            "most versions of the program take JSON here",
        )
        for name, value in options.items()
        if (flag := backend.table.flags.get(name)) is not None
        and flag.other_forms
        and isinstance(value, str)
        and (problem := json_problem(value))
    ]


def _given_flags(backend: Backend, options: Mapping[str, object]) -> Iterator[_GivenFlag]:
    """Yield the flags that ``options`` add to the program's command line."""
    launched = backend.launch_options(options, instance_name="preflight", host=LOOPBACK, port=1)
    words = {word.partition("=")[0] for word in backend.build_args(launched)}
    for name, value in options.items():
        # Secrets are no arguments, and llamactl chooses the port.
        if name in ("extra_args", "port") or name not in launched:
            continue
        flag = backend.table.flags[name]
        if value is False:
            yield _GivenFlag(f"backend_options.{name}", flag.negation, False, True, flag)
            continue
        times = flag.words_of(cast("Setting", value))
        if flag.spelling in words:  # not a model that is given without its flag
            yield _GivenFlag(
                f"backend_options.{name}", flag.spelling, any(times), not all(times), flag
            )
    extra = cast("Mapping[str, ExtraValue]", options.get("extra_args") or {})
    for key, given in extra.items():
        each = given if isinstance(given, list) else [True if given == "true" else given]
        is_bare = True in each
        has_value = any(time is not True for time in each)
        yield _GivenFlag(
            f"backend_options.extra_args.{key}", extra_spelling(key), has_value, is_bare
        )


def _entry(given: _GivenFlag, listed: Help, *, is_argparse: bool) -> ListedFlag | None:
    """Find a flag in the help, under any of its spellings."""
    name = given.spelling
    if found := listed.get(name):
        return found
    if given.flag is not None and name == given.flag.negation:
        # vLLM takes --no-enable-x too, but lists --enable-x and --disable-x.
        own = listed.get(given.flag.spelling)
        return own if own is not None and not own.takes_value else None
    if not is_argparse:
        return None
    # vLLM's "--option.key value" and "--option+ value"
    if (base := listed.get(name.partition(".")[0].rstrip("+"))) and base.takes_value:
        return base
    # argparse takes the start of a name if only one name starts so.
    longer = [other for other in listed if name.startswith("--") and other.startswith(name)]
    return listed[longer[0]] if len(longer) == 1 else None


def _check_value(given: _GivenFlag, entry: ListedFlag, program: str) -> PreflightFinding | None:
    if entry.removed:
        return error(given.field, f"{program} says of {given.spelling}: {entry.removed}")
    if given.has_value and not entry.takes_value:
        return error(
            given.field,
            f"{given.spelling} takes no value in {program}, but it is given one",
            "set it to true for the flag alone"
            if given.flag is None
            else "leave it out, or install a version of the program that takes one",
        )
    if given.is_bare and entry.needs_value:
        return error(
            given.field,
            f"{given.spelling} needs a value in {program}",
            f"its help says {given.spelling} {entry.value[:80]}",
        )
    return None


def _suggestion(given: _GivenFlag, listed: Help) -> str:
    if given.flag is not None:
        for alias in given.flag.aliases:
            if alias in listed:
                return f"it lists {alias}, which means the same in other versions"
        return "other versions have it"
    names = [name for name in listed if name.startswith("--") == given.spelling.startswith("--")]
    near = difflib.get_close_matches(given.spelling, names, n=1, cutoff=_SIMILAR)
    return f"did you mean {near[0]}?" if near else ""
