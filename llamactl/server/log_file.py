"""Log files of the processes that ``manage.py run`` starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from llamactl.core.regular_file import open_regular


def open_log(path: Path) -> BinaryIO:
    """Open a log file for appending, as a child's standard output; mode 0600 when it is new."""
    return open(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def read_tail(path: Path, lines: int, *, max_bytes: int = 64 * 1024) -> str:
    """Read the last ``lines`` lines of a log file; "" if the file can't be read."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
