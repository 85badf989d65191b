"""Which options of a backend name something on disk, and what has to be there?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Expected(Enum):
    """What the program wants to find."""

    GGUF = "a GGUF file"
    FILE = "a file"
    DIRECTORY = "a directory"
    MODEL = "a model: a directory, or a GGUF file"
    """For programs that load what hubs hold: a directory of files."""


@dataclass(frozen=True, slots=True)
class PathOption:
    """A row of a backend's table of paths."""

    expected: Expected
    unless: tuple[str, ...] = ()
    """Options that make it the place where something is downloaded to."""
    may_be_name: bool = False
    """It may be the name of a repository or a preset, too; only what looks like a path is one."""
    commas: bool = False
    """Several paths with commas between them."""
    scaled: bool = False
    """Each may end in ``:0.5``."""


def gguf(*, unless: tuple[str, ...] = (), commas: bool = False, scaled: bool = False) -> PathOption:
    return PathOption(Expected.GGUF, unless, commas=commas, scaled=scaled)


FILE = PathOption(Expected.FILE)
DIRECTORY = PathOption(Expected.DIRECTORY)
MODEL_OR_NAME = PathOption(Expected.MODEL, may_be_name=True)
FILE_OR_NAME = PathOption(Expected.FILE, may_be_name=True)
DIRECTORY_OR_NAME = PathOption(Expected.DIRECTORY, may_be_name=True)
