"""Options of a backend that name a file or directory, and the kind of file they need."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Expected(Enum):
    """The kind of file that a program needs at a path."""

    GGUF = "a GGUF file"
    FILE = "a file"
    DIRECTORY = "a directory"
    MODEL = "a model: a directory, or a GGUF file"
    """For programs that load a hub's repository, which on disk is a directory of files."""


@dataclass(frozen=True, slots=True)
class PathOption:
    """The rule for the paths in one option."""

    expected: Expected
    unless: tuple[str, ...] = ()
    """Options that make the path the target of a download, so that no file need exist yet."""
    may_be_name: bool = False
    """Whether the text may also name a repository or preset; then only some texts are paths."""
    commas: bool = False
    """Whether the text holds several paths with commas between them."""
    scaled: bool = False
    """Whether each path may end in a scale: ``:0.5``."""


def gguf(*, unless: tuple[str, ...] = (), commas: bool = False, scaled: bool = False) -> PathOption:
    """Paths of GGUF files."""
    return PathOption(Expected.GGUF, unless, commas=commas, scaled=scaled)


FILE = PathOption(Expected.FILE)
DIRECTORY = PathOption(Expected.DIRECTORY)
MODEL_OR_NAME = PathOption(Expected.MODEL, may_be_name=True)
FILE_OR_NAME = PathOption(Expected.FILE, may_be_name=True)
DIRECTORY_OR_NAME = PathOption(Expected.DIRECTORY, may_be_name=True)
