"""How is a bad configuration told: one line for each problem, with no secret in it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from llamactl.masking import is_secret_name

FieldPath = tuple[str, ...]
"""Field names from the root: ``("backends", "llama_cpp", "docker", "image")``."""

Origins = Mapping[FieldPath, str]
"""Who set a value: path of the key -> file, line of ``.env`` or name of a variable."""

_FREE_FIELDS = frozenset({"args", "environment", "response_headers", "url"})
"""Fields in which operators put secrets under any name. A bad value is not shown."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2  # a list of lists may be a YAML bomb: a few aliases that print as gigabytes


class ConfigError(Exception):
    """The configuration can't be used. ``str()`` is what to print: one line a problem."""

    def __init__(self, lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
        self.lines = tuple(map(printable, lines))
        self.warnings = tuple(map(printable, warnings))
        """What would have been ``config_warnings``: a misspelt key may be the cause."""
        super().__init__("\n".join(self.lines))


def shown(value: object) -> str:
    """``value`` for an error line: short, quoted, without control characters."""
    return _short.repr(value)


def printable(line: str) -> str:
    """``line`` with control characters escaped: a line break in a key or path is no second line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def dotted(path: FieldPath) -> str:
    """The key as it is written in the file: ``backends.llama-cpp.command``."""
    if path[:1] == ("backends",) and len(path) > 1:
        path = ("backends", path[1].replace("_", "-"), *path[2:])
    return ".".join(path)[:200]


def is_secret(path: FieldPath) -> bool:
    """Whether the value at ``path`` must not be shown.

    The first name is that of a section: ``auth`` holds switches as well as keys.
    """
    return not _FREE_FIELDS.isdisjoint(path) or any(map(is_secret_name, path[1:]))


def origin_of(path: FieldPath, origins: Origins) -> str:
    """Who set the value at ``path``, or the section it is in; ``default`` when nobody did."""
    starts = (path[:length] for length in range(len(path), 0, -1))
    return next((origins[start] for start in starts if start in origins), "default")


def error_lines(error: ValidationError, origins: Origins) -> list[str]:
    """A line for each problem: who set which key to what, and what is allowed."""
    lines = []
    for problem in error.errors(include_url=False):
        path = tuple(str(part) for part in problem["loc"])
        is_name = path[-1:] == ("[key]",)
        subject = f"a name in {dotted(path[:-2])}" if is_name else dotted(path)
        if not is_secret(path):
            subject += f" is {shown(problem['input'])}, but"
        message = problem["msg"].replace("Input should", "should")
        lines.append(f"{origin_of(path, origins)}: {subject} {message}")
    return lines
