"""A program that writes a log as fast as it can, and what has become of its lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from instances.supervisor import logfiles
from instances.supervisor.logparts import parts_of, read_from
from instances.supervisor.process import Marker, Process, spawn

WRITER = """
import os, sys, time
until, pause, number = time.monotonic() + float(sys.argv[1]), float(sys.argv[2]), 0
while time.monotonic() < until:
    lines = (b"line %09d of a log that is written in a hurry\\n" % (number + i) for i in range(100))
    os.write(1, b"".join(lines))
    number += 100
    time.sleep(pause)
"""


def start_writer(
    path: Path, *, seconds: float, pause: float = 0.0, program: str = WRITER
) -> Process:
    """Writes numbered lines, 100 at a time, for so long."""
    log = logfiles.open_log(path, create_directory=True)
    try:
        return spawn(
            [sys.executable, "-S", "-c", program, str(seconds), str(pause)],
            environment=dict(os.environ),
            marker=Marker("node", "1:one", "launch"),
            directory=path.parent,
            log=log,
        )
    finally:
        os.close(log)


def all_lines(path: Path) -> list[bytes]:
    """The lines of all files of a log, the oldest first; each file ends with a line."""
    texts = []
    for part in parts_of(path):
        with part.open() as file:
            texts.append(read_from(file, -1))
    texts.append(path.read_bytes())
    assert all(text.endswith(b"\n") for text in texts if text)
    return b"".join(texts).splitlines()


def numbers(lines: list[bytes]) -> list[int]:
    """Of the writer's lines; every other line must be one of ours."""
    own = [line for line in lines if not line.startswith(b"===")]
    assert all(len(line) == len(own[0]) for line in own)
    return [int(line[5:14]) for line in own]
