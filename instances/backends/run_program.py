"""Short runs of a backend's program, for its help, version or devices.

The program runs below the web process, so its run time and its output are bounded.
"""

from __future__ import annotations

import atexit
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from llamactl.core.errors import LlamactlError

_BLOCK_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 500

_running: set[subprocess.Popen[bytes]] = set()
"""The programs that run now."""


class CommandFailed(LlamactlError):
    """A program that is missing, failed, or exceeded a bound."""

    code = "command failed"  # with the blank: it is the seed's
    status = 500


def output_of(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_seconds: float = 15.0,
    max_bytes: int = 1024 * 1024,
) -> str:
    """Run a program; return its standard output and standard error as one text.

    There is no shell and no standard input, and no child of a killed program outlives the program.
    Raises CommandFailed for a program that is missing, fails, or exceeds a bound.
    """
    process = _start(argv, environment)
    with process, _killed_at_exit(process):
        try:
            output = _read(process, time.monotonic() + timeout_seconds, max_bytes)
        except (CommandFailed, TimeoutError, subprocess.TimeoutExpired) as error:
            # The process has not been waited for, so its number can't be another process's yet.
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, CommandFailed):
                raise
            raise CommandFailed(
                f"{' '.join(argv)[:_SHOWN_CHARACTERS]} did not end within {timeout_seconds:g} s"
            ) from None
    text = output.decode("utf-8", "replace")
    if process.returncode != 0:
        raise CommandFailed(
            f"{argv[0]} ended with exit code {process.returncode}:"
            f" {text.strip()[-_SHOWN_CHARACTERS:]}"
        )
    return text


def _start(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{argv[0]} can't be started: {error.strerror}") from error


@contextmanager
def _killed_at_exit(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Keep the process in ``_running``: our exit does not wait for the thread that runs it."""
    _running.add(process)
    try:
        yield
    finally:
        _running.discard(process)


@atexit.register
def end_running_programs() -> None:
    """Kill the programs that run now.

    A server calls this too when it stops: a process that a signal ends runs no exit handlers.
    """
    for process in tuple(_running):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _read(process: subprocess.Popen[bytes], deadline: float, max_bytes: int) -> bytes:
    """Read until both output and process end. Raises when a bound is reached first."""
    if process.stdout is None:
        raise ValueError("the process has no pipe to read from")
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= max_bytes:
            # A child of the program may hold the pipe open, so reading alone might never end.
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            block = os.read(process.stdout.fileno(), _BLOCK_BYTES)
            if not block:
                process.wait(max(0.0, deadline - time.monotonic()))
                return bytes(output)
            output += block
    raise CommandFailed(f"{process.args!r:.200} printed more than {max_bytes} bytes")
