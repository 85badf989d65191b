"""Retirement of a log: the log of a deleted instance is not that of the next one of its name."""

from __future__ import annotations

from pathlib import Path

from instances.logs.segments import segments_of, unfinished_path

RETIRED = "deleted"
"""Directory below the logs' one. It holds the last log of each name whose instance was deleted."""


def retire_log(path: Path) -> None:
    """Move the log at ``path`` with its segments away. Without a log nothing happens.

    An earlier retired log of the name is removed, so the directory grows by names alone. A process
    that still writes goes on writing to the retired file. Raises OSError.
    """
    try:
        files = [segment.path for segment in segments_of(path)]
    except FileNotFoundError:
        return  # no directory yet: nothing was ever started
    unfinished_path(path).unlink(missing_ok=True)
    files += [path] if path.is_file() else []
    if not files:
        return
    directory = path.parent / RETIRED
    directory.mkdir(mode=0o700, exist_ok=True)
    retired = directory / path.name
    for old in (retired, *(segment.path for segment in segments_of(retired))):
        old.unlink(missing_ok=True)
    for file in files:
        file.replace(directory / file.name)
