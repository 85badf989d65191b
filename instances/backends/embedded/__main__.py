"""The embedded server as two processes, so that it can be watched and stopped.

xllamacpp's constructor keeps Python's global lock until the model is loaded: for minutes its
process can't act on a signal, and after an abort of llama.cpp no code is left to tell the reason.

* The *outer* process, known to the supervisor by its pid, reads the flags, makes the cheap checks,
  passes the log through, and ends on SIGINT or SIGTERM with exit code 0.
* The *inner* process is the server. It ends when its standard input closes, so it can't outlive
  the outer process, however the outer process ends.

Each failure ends with one line ``error: …`` that tells the problem and the remedy. The exit code
is 1 as with llama-server, or 128 + n if signal n ended the server.
"""

# ruff: noqa: T201 - standard output and error are the program's interface
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING or __package__:
    from .arguments import INSTALL_HINT, Setting, help_text, parse
    from .checks import check_address, check_files
    from .explanations import explain
    from .inner import print_devices, print_version, serve
    from .start_error import StartError
else:  # started by its path: modules are looked for in this directory first
    from arguments import INSTALL_HINT, Setting, help_text, parse
    from checks import check_address, check_files
    from explanations import explain
    from inner import print_devices, print_version, serve
    from start_error import StartError

INNER = "--inner"
"""First argument of the inner process; no flag of llama-server."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TAIL_BYTES = 16 * 1024
"""The part of the log's end that is searched for the reason of a failure."""


def main(arguments: Sequence[str]) -> int:
    """Run as the arguments say; return the exit code."""
    try:
        if arguments[:1] == [INNER]:
            return serve(parse(arguments[1:], os.environ))
        if {"-h", "--help", "--usage"} & set(arguments):
            print(f"usage: llama-server --model FILE [flags]\n\n{help_text()}\n\n{INSTALL_HINT}")
            return 0
        if "--version" in arguments:
            return print_version()
        if "--list-devices" in arguments:
            return print_devices()
        values = last_values(parse(arguments, os.environ))
        check_files(values)
        check_address(values)
        return supervise(arguments)
    except StartError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def last_values(settings: Sequence[Setting]) -> dict[str, Any]:
    return {
        next(name for name in setting.flag.names if name.startswith("--")): setting.value
        for setting in settings
    }


def supervise(arguments: Sequence[str]) -> int:
    """Run the inner process until it ends or a stop signal comes; return the exit code.

    1. Block the stop signals: the inner process inherits the block (it ends with its standard
       input instead), and no signal is lost before the handlers are set.
    2. Start the inner process and unblock: each stop signal ends this function with
       ``SystemExit(0)``.
    3. Pass the log through until it closes, then explain a failure.
    4. Kill the inner process in any case.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    inner = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).parent), INNER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # On an abort ggml starts gdb for a backtrace, which buries the reason of the abort.
        env={"GGML_NO_BACKTRACE": "1", **os.environ},
    )
    os.environ.pop("LLAMA_API_KEY", None)
    try:
        for stop_signal in STOP_SIGNALS:
            # Also where SIGINT is inherited as ignored, as in a shell's background job.
            signal.signal(stop_signal, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        tail = pass_through(cast("IO[bytes]", inner.stdout).fileno(), sys.stderr.fileno())
        return explain(tail, inner.wait())
    finally:
        inner.kill()
        inner.wait()


def stop(signal_number: int, _frame: FrameType | None) -> None:
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)  # a second stop signal changes nothing
    os.write(sys.stderr.fileno(), f"stopped by {signal.Signals(signal_number).name}\n".encode())
    raise SystemExit(0)


def pass_through(source: int, sink: int) -> str:
    """Copy bytes until ``source`` ends; return the last of them, for ``explain``."""
    tail = b""
    while chunk := os.read(source, 65536):
        tail = (tail + chunk)[-TAIL_BYTES:]
        with contextlib.suppress(OSError):  # a full disk loses log lines, but stops no server
            while chunk:
                chunk = chunk[os.write(sink, chunk) :]
    return tail.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
