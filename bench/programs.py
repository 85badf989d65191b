"""Another program, run for the length of a benchmark."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.processes import end, tree
from bench.systems import await_port

LOG_TAIL_CHARACTERS = 2000


@contextmanager
def running_program(
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    port: int,
    *,
    start_seconds: float,
) -> Iterator[psutil.Process]:
    """A program that listens on a port, for the length of the block.

    `environment` is added to ours; the output goes to a file in `directory`. Raises
    RuntimeError, with the end of the output, when the program does not listen in time.
    """
    log_path = directory / "output.log"
    with log_path.open("wb") as log:
        program = subprocess.Popen(
            argv,
            env={**os.environ, **environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = psutil.Process(program.pid)
    try:
        try:
            await_port(port, program, timeout_seconds=start_seconds)
        except RuntimeError as error:
            output = log_path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
            raise RuntimeError(f"{argv[0]}: {error}\n{output}") from error
        yield process
    finally:
        end(tree(process), grace_seconds=5)
        program.wait()
