"""Check of the files and directories that an instance's options name.

Only regular files are opened, and only their first bytes are read. A path on a network disk that is
away may still hang, so callers run the check in a thread.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from instances.backends.base import Backend, looks_like_path
from instances.backends.path_options import Expected, PathOption
from instances.preflight.findings import PreflightFinding, error
from instances.preflight.gguf import HEADER_BYTES, header_problem

MAX_PATHS = 20
"""Paths that are checked for one option; a list may have any number."""
_MAX_NEIGHBOURS = 1000
_MAX_SHOWN = 200
_SPLIT = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.ASCII | re.DOTALL)
_MAX_PARTS = 1000
_SCALE = re.compile(r":[0-9.+-]{1,20}", re.ASCII)
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a file",
}


class _PathProblem(Exception):
    """A path that does not lead to the expected file, with advice."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


def check_files(
    backend: Backend, options: Mapping[str, object], directory: Path
) -> list[PreflightFinding]:
    """Check the paths in ``options`` (in normal form).

    Relative paths are below ``directory``, the working directory of the process.
    """
    findings = []
    for name, path, option in _paths(backend, options):
        try:
            _check(directory, path, option.expected)
        except _PathProblem as problem:
            findings.append(error(f"backend_options.{name}", problem.message, problem.suggestion))
    return findings


def _paths(
    backend: Backend, options: Mapping[str, object]
) -> Iterator[tuple[str, str, PathOption]]:
    for name, option in backend.path_options.items():
        value = options.get(name)
        if any(options.get(other) for other in option.unless):
            continue
        texts = value if isinstance(value, list) else [value]
        named = (path for text in texts if isinstance(text, str) for path in _named(text, option))
        for path in islice(dict.fromkeys(named), MAX_PATHS):
            yield name, path, option


def _named(text: str, option: PathOption) -> Iterator[str]:
    """Return the paths in a text that an operator gave for ``option``."""
    if option.may_be_name and not _is_path(text):
        return
    for path in text.split(",") if option.commas else [text]:
        if path:
            yield _without_scale(path) if option.scaled else path


def _is_path(text: str) -> bool:
    """Tell a path from a repository's name, and from a template that is given as text."""
    return looks_like_path(text) and "\n" not in text and "{{" not in text


def _without_scale(path: str) -> str:
    stem, colon, scale = path.rpartition(":")
    return stem if colon and _SCALE.fullmatch(colon + scale) else path


def _check(directory: Path, path: str, expected: Expected) -> None:
    """Raise _PathProblem for a path that does not lead to the expected file."""
    full_path = os.path.join(directory, path)
    mode = _mode(directory, path, full_path, expected)
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    match expected:
        case Expected.DIRECTORY:
            fits = stat.S_ISDIR(mode)
        case Expected.MODEL:
            fits = stat.S_ISDIR(mode) or stat.S_ISREG(mode)
        case _:
            fits = stat.S_ISREG(mode)
    if not fits:
        raise _PathProblem(f"must be {expected.value}, but {shown(path)} is {kind}")
    if stat.S_ISDIR(mode):
        if not os.access(full_path, os.R_OK | os.X_OK):
            raise _PathProblem(f"{shown(path)} can't be read by user {os.getuid()}")
        return
    header = _first_bytes(full_path, path, 0 if expected is Expected.FILE else HEADER_BYTES)
    if expected is Expected.FILE:
        return
    if problem := header_problem(header):
        raise _PathProblem(f"must be {expected.value}, but {shown(path)} {problem}")
    _check_split(full_path, path)


def _mode(directory: Path, path: str, full_path: str, expected: Expected) -> int:
    try:
        return os.stat(full_path).st_mode
    except FileNotFoundError:
        raise _PathProblem(
            f"{shown(path)} does not exist{_base_directory(directory, path)}",
            _similar_path(path, full_path, expected),
        ) from None
    except (OSError, ValueError) as problem:
        raise _PathProblem(f"{shown(path)} can't be checked: {_reason(problem)}") from None


def _first_bytes(full_path: str, path: str, count: int) -> bytes:
    """Read the start of a regular file; if the file was replaced by a FIFO, don't block."""
    try:
        descriptor = os.open(full_path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _PathProblem(f"{shown(path)} is no longer a file")
            return os.read(descriptor, count)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise _PathProblem(f"{shown(path)} can't be read: {_reason(problem)}") from None


def _check_split(full_path: str, path: str) -> None:
    """Check a model in several files: the option names the first, and all must exist."""
    match = _SPLIT.fullmatch(full_path)
    if match is None:
        return
    stem, number, count = match[1], int(match[2]), int(match[3])
    if not 1 <= number <= count <= _MAX_PARTS:
        return
    if number != 1:
        raise _PathProblem(
            f"{shown(path)} is part {number} of a model in {count} files",
            f"give the first: …-00001-of-{match[3]}.gguf",
        )
    missing = [
        part
        for part in range(2, count + 1)
        if not os.path.exists(f"{stem}-{part:05}-of-{match[3]}.gguf")
    ]
    if missing:
        raise _PathProblem(
            f"{shown(path)} is a model in {count} files, of which {len(missing)} are missing, part"
            f" {missing[0]} for one"
        )


def _base_directory(directory: Path, path: str) -> str:
    return "" if os.path.isabs(path) else f" below {directory}, where backends are started"


def _similar_path(path: str, full_path: str, expected: Expected) -> str:
    """Suggest a path that the operator may have meant."""
    if path.startswith("~"):
        return "~ is not expanded, as no shell is in between; write the whole path"
    try:
        with os.scandir(os.path.dirname(full_path)) as entries:
            names = [entry.name for entry in islice(entries, _MAX_NEIGHBOURS)]
    except OSError:
        return ""
    if expected is Expected.GGUF:
        names = [name for name in names if name.endswith(".gguf")]
    near = difflib.get_close_matches(os.path.basename(full_path)[:255], names, n=1)
    if not near:
        return ""
    return f"did you mean {shown(os.path.join(os.path.dirname(path), near[0]))}?"


def _reason(problem: Exception) -> str:
    if not isinstance(problem, OSError):
        return "it holds a NUL character, or is no valid text"
    if problem.errno == errno.ELOOP:
        return "its symbolic links go round in a circle"
    return (problem.strerror or str(problem)).lower()


def shown(path: str) -> str:
    """Quote a path for a message, on one line and in at most 200 characters."""
    described = repr(path)
    return described if len(described) <= _MAX_SHOWN else f"{described[: _MAX_SHOWN - 1]}…"
