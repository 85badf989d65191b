"""Search for the newest CPython of this machine, on which CI runs the tests once more.

    python -m tests.support.newest_python

Prints the interpreter's path, or nothing if none is newer than the running one; what was found goes
to standard error. Candidates are python3.N on the PATH and the versions of pyenv.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 14)
"""The pinned packages have wheels for these."""
PROBE_SECONDS = 30

# A Debian without python3-venv lacks ensurepip; pyenv's shims of other versions exit with 127.
_PROBE = """
import ensurepip, json, sys, sysconfig, venv
print(json.dumps([
    sys.implementation.name,
    sys.version_info[:],
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
]))
"""


@dataclass(frozen=True, order=True)
class Interpreter:
    """A usable CPython: a release, with the GIL, that can make environments."""

    version: tuple[int, int, int]
    path: Path

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.path})"


def candidates(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Yield the interpreters on the PATH and in pyenv's directories, in no order."""
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        if found := shutil.which(f"python3.{minor}", path=environ.get("PATH", "")):
            yield Path(found)
    roots = {Path(environ["PYENV_ROOT"])} if environ.get("PYENV_ROOT") else set()
    for root in roots | {home / ".pyenv"}:
        yield from root.glob("versions/3.*/bin/python")


def probe(path: Path) -> Interpreter | None:
    """Start an interpreter and return its version; ``None`` if the tests can't run on it."""
    try:
        # -I: neither the variables nor the directory of the caller's Python count.
        done = subprocess.run(
            [path, "-I", "-c", _PROBE], capture_output=True, check=True, timeout=PROBE_SECONDS
        )
        name, (major, minor, micro, level, _), is_free_threaded = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if name != "cpython" or level != "final" or is_free_threaded:
        return None
    if not OLDEST <= (major, minor) <= NEWEST:
        return None
    return Interpreter((major, minor, micro), path)


def newest(paths: Iterable[Path]) -> Interpreter | None:
    """Return the usable interpreter of the highest version, if there is any."""
    return max(filter(None, map(probe, paths)), default=None)


def main() -> int:
    """Print the path of the interpreter to test on besides, and say on standard error which."""
    running = f"Python {sys.version.partition(' ')[0]}"
    found = newest(candidates(os.environ, Path.home()))
    if found is None or found.version[:2] <= sys.version_info[:2]:
        print(f"{running} is the newest Python found: the tests run on it alone", file=sys.stderr)
    else:
        print(f"{found} is newer than {running}: the tests run on both", file=sys.stderr)
        print(found.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
