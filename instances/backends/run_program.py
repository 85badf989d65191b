"""What does a backend's program say of itself (its help, its version, its devices)?

The program is asked in the web process, and may neither take long nor print much.
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

_asked: set[subprocess.Popen[bytes]] = set()
"""Those that run now."""


class CommandFailed(LlamactlError):
    """The program is not there, failed, or broke the bounds."""

    code = "command failed"  # with the blank: it is the seed's
    status = 500


def output_of(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_seconds: float = 15.0,
    max_bytes: int = 1024 * 1024,
) -> str:
    """Standard output and standard error as one text, once the program has ended well.

    No shell, nothing on standard input, and none of its children outlives a program that had to
    be killed. Raises CommandFailed.
    """
    try:
        process = subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{argv[0]} can't be started: {error.strerror}") from error
    with process, _ended_with_us(process):
        try:
            output = _read(process, time.monotonic() + timeout_seconds, max_bytes)
        except (CommandFailed, TimeoutError, subprocess.TimeoutExpired) as error:
            # It has not been waited for, so its number is still its own.
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


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Programs may be asked on threads that our end doesn't wait for; theirs has to come too."""
    _asked.add(process)
    try:
        yield
    finally:
        _asked.discard(process)


@atexit.register
def end_running_programs() -> None:
    """Kill the programs that are being asked now.

    Also for servers to call when they stop: a process that a signal ends runs no exit handlers.
    """
    for process in tuple(_asked):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _read(process: subprocess.Popen[bytes], deadline: float, max_bytes: int) -> bytes:
    """Everything until the end of output and process. Raises when a bound is reached first."""
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
