"""Identity of an installed program: its command, its environment, and a stamp of its file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

LOADER_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
"""Variables of an instance that decide which program and which libraries are loaded.

A pasted command may hold any of them, so they are used once the instance is saved, and not before.
"""


@dataclass(frozen=True)
class Program:
    """A program that can be asked for its help."""

    argv: tuple[str, ...]
    help_flags: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    stamp: str
    """Changes with the program's file."""

    @property
    def key(self) -> str:
        """Hash of the command and its environment, without the stamp."""
        identity = json.dumps([self.argv, self.help_flags, self.environment])
        return sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def identify(
    command: Sequence[str],
    args: Sequence[str],
    *,
    help_flags: tuple[str, ...],
    configured: Mapping[str, str],
    own: Mapping[str, str],
) -> Program:
    """Identify the program of ``command``, with the configured ``args`` before the help flag.

    The program gets the ``configured`` environment. Of an instance's ``own`` environment it gets
    only the variables that decide what is loaded, because ``--help`` needs no secrets.
    Raises OSError for a missing file.
    """
    loader = {name: own[name] for name in LOADER_VARIABLES if name in own}
    return Program(
        argv=(*command, *args),
        help_flags=help_flags,
        environment=tuple(sorted({**configured, **loader}.items())),
        stamp=";".join(_stamp(word) for word in command if os.path.isabs(word)),
    )


def _stamp(path: str) -> str:
    """Size, time of change and inode of a file, or of the files in a directory (bundled server)."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            files = sorted(entry.path for entry in entries if entry.is_file())
        return ",".join(map(_stamp, files))
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
