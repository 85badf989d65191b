"""Error lines for a bad configuration: one line a problem, without secrets."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from llamactl.masking import MASK, is_secret_name

FieldPath = tuple[str, ...]
"""Field names from the root: ``("backends", "llama_cpp", "docker", "image")``."""

Origins = Mapping[FieldPath, str]
"""Origin of each value: field path → file, line of ``.env`` or name of a variable."""

DEFAULT = "default"
"""Origin of a value that no source sets."""

_FREE_FIELDS = frozenset({"args", "environment", "response_headers", "url"})
"""Fields in which operators put secrets under any name. A bad value is not shown."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2  # nested lists of a few YAML aliases would print as gigabytes


class ConfigError(Exception):
    """A configuration that can't be used. ``str()`` gives one line a problem."""

    def __init__(self, lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
        self.lines = tuple(map(printable, lines))
        self.warnings = tuple(map(printable, warnings))
        """The warnings so far: a misspelt key may be the cause of an error."""
        super().__init__("\n".join(self.lines))


def shown(value: object) -> str:
    """Quote ``value`` for an error line: short, without control characters."""
    return _short.repr(value)


def printable(line: str) -> str:
    """Escape control characters: a line break in a key or path must not start a second line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def dotted(path: FieldPath) -> str:
    """Write ``path`` as the key in the file: ``backends.llama-cpp.command``."""
    if path[:1] == ("backends",) and len(path) > 1:
        path = ("backends", path[1].replace("_", "-"), *path[2:])
    return ".".join(path)[:200]


def is_secret(path: FieldPath) -> bool:
    """Whether the value at ``path`` must not be shown.

    The first name is that of a section: ``auth`` holds switches as well as keys.
    """
    return not _FREE_FIELDS.isdisjoint(path) or any(map(is_secret_name, path[1:]))


def origin_of(path: FieldPath, origins: Origins) -> str:
    """Return the origin of the value at ``path``, or of its section; ``default`` without any."""
    starts = (path[:length] for length in range(len(path), 0, -1))
    return next((origins[start] for start in starts if start in origins), DEFAULT)


def error_lines(error: ValidationError, origins: Origins) -> list[str]:
    """Write a line for each problem: origin, key, value and rule."""
    lines = []
    for problem in error.errors(include_url=False):
        path = tuple(str(part) for part in problem["loc"])
        is_name = path[-1:] == ("[key]",)
        subject = f"a name in {dotted(path[:-2])}" if is_name else dotted(path)
        if not is_secret(path):
            value = problem["input"]
            if isinstance(value, str) and "@" in value:  # a URL, or what was meant as one
                value = f"{MASK}@{value.rpartition('@')[2]}"
            subject += f" is {shown(value)}, but"
        message = problem["msg"].replace("Input should", "should")
        lines.append(f"{origin_of(path, origins)}: {subject} {message}")
    return lines
