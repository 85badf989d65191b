"""A program that writes a log as fast as it can, and a check of the lines."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from instances.logs import files
from instances.logs.segments import read_from, segments_of
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process, spawn

ROTATIONS = 5
"""The least number of rotations before the writer may end."""
WRITER = """
import os, signal, sys, time
is_over = []
signal.signal(signal.SIGTERM, lambda *_: is_over.append(1))
pause, number = float(sys.argv[1]), 0
while not is_over:
    lines = (b"line %09d of a log that is written in a hurry\\n" % (number + i) for i in range(100))
    os.write(1, b"".join(lines))
    number += 100
    time.sleep(pause)
"""


def start_writer(path: Path, *, pause: float = 0.0, program: str = WRITER) -> Process:
    """Writes numbered lines, 100 at a time, until SIGTERM."""
    log = files.open_log(path, create_directory=True)
    try:
        return spawn(
            [sys.executable, "-S", "-c", program, str(pause)],
            environment=dict(os.environ),
            marker=Marker("node", "1:one", "launch"),
            directory=path.parent,
            log=log,
        )
    finally:
        os.close(log)


def rotate_while_it_writes(process: Process, rotate: Callable[[], bool], seconds: float) -> None:
    """Call ``rotate``, which says whether it did, for so long and often enough; end the writer."""
    rotations, began = 0, time.monotonic()
    try:
        while time.monotonic() - began < seconds or rotations < ROTATIONS:
            assert not process.has_exited()
            assert time.monotonic() - began < 40, f"only {rotations} rotations"
            rotations += rotate()
        process.signal_group(signal.SIGTERM)
        while not process.has_exited():
            rotate()
    except BaseException:
        process.signal_group(signal.SIGKILL)  # it would fill the disk
        raise


def all_lines(path: Path) -> list[bytes]:
    """The lines of all files of a log, the oldest first; each file ends with a line."""
    texts = []
    for segment in segments_of(path):
        with segment.open() as file:
            texts.append(read_from(file, -1))
    texts.append(path.read_bytes())
    assert all(text.endswith(b"\n") for text in texts if text)
    return b"".join(texts).splitlines()


def numbers(lines: list[bytes]) -> list[int]:
    """Return the numbers of the writer's lines; every other line must be a line of llamactl."""
    own = [line for line in lines if not line.startswith(b"===")]
    assert all(len(line) == len(own[0]) for line in own)
    return [int(line[5:14]) for line in own]
