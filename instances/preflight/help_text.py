"""Reader of a program's ``--help``: the flags that it lists, and which of them take a value.

The program may be any program, so its text is read line by line within bounds, by a scanner that
reads no character twice. Two layouts are known: llama-server's ::

    -c,    --ctx-size N                     size of the prompt context (default: 0)
                                            (env: LLAMA_ARG_CTX_SIZE)

and argparse's, of before and after Python 3.13::

      --api-key API_KEY [API_KEY ...]
      -tp TENSOR_PARALLEL_SIZE, --tensor-parallel-size TENSOR_PARALLEL_SIZE
      --headless            Run in headless mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FEWEST_FLAGS = 20
"""A text with fewer flags is no server's help, or is in an unknown layout."""
MAX_CHARACTERS = 1024 * 1024
_MAX_FLAGS = 5_000
_MAX_LINE = 2_000
_MAX_INDENT = 6
"""A line with a larger indent is a description or argparse's usage."""
_MAX_NOTE = 200

_NAME = re.compile(r"--?[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}", re.ASCII)
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}m", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_REMOVED = "argument has been removed"


@dataclass(frozen=True, slots=True)
class ListedFlag:
    """The value and the note of one entry of the help."""

    value: str
    """The value as the help writes it: ``N``, ``[on|off|auto]``; empty for a flag without."""
    removed: str = ""
    """The note on a flag that is listed only because newer versions removed it."""

    @property
    def takes_value(self) -> bool:
        return bool(self.value)

    @property
    def needs_value(self) -> bool:
        return bool(self.value) and not self.value.startswith("[")


Help = Mapping[str, ListedFlag]
"""Spelling of a flag, with its dashes → its entry."""


def read_help(text: str) -> Help | None:
    """Read the flags that ``text`` lists; None for a text that is no server's help."""
    flags: dict[str, ListedFlag] = {}
    for names, value, description in _entries(text[:MAX_CHARACTERS]):
        removed = description[:_MAX_NOTE] if _REMOVED in description else ""
        for name in names:
            flags.setdefault(name, ListedFlag(value, removed))
        if len(flags) > _MAX_FLAGS:
            return None
    return flags if len(flags) >= FEWEST_FLAGS else None


def _entries(text: str) -> Iterator[tuple[list[str], str, str]]:
    """Yield names, value and description of each entry."""
    entry: tuple[list[str], str] | None = None
    description: list[str] = []
    for line in text.splitlines():
        line = _COLOUR.sub("", line[:_MAX_LINE])
        bare = line.lstrip(" ")
        found = None
        if bare.startswith("-") and len(line) - len(bare) <= _MAX_INDENT:
            found = _read_entry(bare)
        if found is None:
            if entry is not None and len(description) < 10:
                description.append(bare)
            continue
        if entry is not None:
            yield *entry, _plain(description)
        names, value, rest = found
        entry, description = (names, value), [rest]
    if entry is not None:
        yield *entry, _plain(description)


def _read_entry(line: str) -> tuple[list[str], str, str] | None:
    """Read names, value and the start of the description; None for a line that is no entry."""
    names: list[str] = []
    value = ""
    at = 0
    while match := _NAME.match(line, at):
        names.append(match[0])
        at = match.end()
        if line[at : at + 1] in (" ", "=") and line[at + 1 : at + 2] not in ("", " "):
            end = _end_of_value(line, at + 1)
            value = value or line[at + 1 : end]
            at = end
        if line[at : at + 1] != ",":
            break
        at += 1
        while line[at : at + 1] == " ":
            at += 1
    if not names or line[at : at + 1] not in ("", " "):
        return None
    return names, value, line[at:].strip()


def _end_of_value(line: str, start: int) -> int:
    """Find the end of a value, at two blanks or the next name; ``START END`` has one blank."""
    ends = (line.find(mark, start) for mark in ("  ", ", -"))
    return min((end for end in ends if end >= 0), default=len(line))


def _plain(lines: list[str]) -> str:
    return _UNPRINTABLE.sub(" ", " ".join(filter(None, lines))).strip()
