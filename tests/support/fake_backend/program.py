#!/usr/bin/env python3
"""The fake backend's program: a real process with real signals, a port, and knobs.

It takes llama-server's ``--host``, ``--port``, ``--model`` and ``--alias``, and two flags of its
own: ``--tps`` (tokens per second of a stream, 100) and ``--load-seconds`` (for which ``/health``
is 503). Every other flag is ignored. ``knobs.py`` has the knobs, ``connection.py`` the requests.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

# Started by its path, also with -S and -E: the package is found from here.
sys.path[0] = str(Path(__file__).resolve().parents[3])

from tests.support.fake_backend.connection import (  # noqa: E402
    DEFAULT_TPS,
    Backend,
    Connection,
)
from tests.support.fake_backend.event_loop import EventLoop  # noqa: E402
from tests.support.fake_backend.knobs import Knobs  # noqa: E402

DAEMON = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("daemon", __import__("os").getpid(), flush=True)
time.sleep(600)
"""


def log(line: str) -> None:
    """Print at once; an unwritable log is no reason to end, as in llama-server."""
    try:
        os.write(1, f"{line}\n".encode())
    except OSError:
        return


def end(knobs: Knobs) -> None:
    """Crash as the knobs say."""
    if "crash_signal" in knobs:
        number = int(knobs.number("crash_signal"))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(int(knobs.number("exit_code", 1)))


def start_child(kind: str) -> None:
    """Start a child that outlives this process unless it is killed."""
    if os.fork() == 0:
        if kind != "group":
            os.setsid()
        if kind in ("daemon", "listener") and os.fork() > 0:
            os._exit(0)
        if kind in ("daemon", "listener", "wiped"):
            # exec replaces the environment, as setproctitle overwrites it.
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", DAEMON], {})  # noqa: S606
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)


def option(name: str, default: str) -> str:
    """Return the value of a flag, given as ``--name value`` or ``--name=value``."""
    arguments = sys.argv[1:]
    for at, word in enumerate(arguments):
        if word == name and at + 1 < len(arguments):
            return arguments[at + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return default


def prepare(knobs: Knobs) -> None:
    """Apply the knobs that work before the program listens."""
    for number, knob in ((signal.SIGINT, "ignore_sigint"), (signal.SIGTERM, "ignore_sigterm")):
        is_ignored = knob in knobs
        signal.signal(number, signal.SIG_IGN if is_ignored else lambda *_: os._exit(0))
    for line in range(int(knobs.number("log_lines"))):
        log(f"line {line}")
    if "print" in knobs:
        log(knobs.text("print"))
    if "child" in knobs and knobs.text("child") != "listener":
        start_child(knobs.text("child"))
    is_crash = "exit_code" in knobs or "crash_signal" in knobs
    if is_crash and "crash_after" not in knobs:
        end(knobs)
    time.sleep(knobs.number("bind_seconds"))


def listen() -> socket.socket:
    host, port = option("--host", "127.0.0.1"), int(option("--port", "8080"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        log(f"couldn't bind HTTP server socket, hostname: {host}, port: {port}: {error}")
        sys.exit(1)
    log(f"main: server is listening on http://{host}:{port}")
    return listener


def main() -> None:
    if "--help" in sys.argv:
        print(__doc__)
        return
    model = option("--model", "fake")
    knobs = Knobs(model, os.environ)
    prepare(knobs)
    # A thousand streams are more than the usual soft limit of open files allows.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = EventLoop()
    listener = listen()
    if knobs.text("child") == "listener":
        listener.set_inheritable(True)
        start_child("listener")
    backend = Backend(
        knobs,
        alias=option("--alias", model),
        api_key=os.environ.get("LLAMA_API_KEY") or os.environ.get("VLLM_API_KEY") or "",
        tps=float(option("--tps", str(DEFAULT_TPS))),
        load_seconds=float(option("--load-seconds", "0")) + knobs.number("start_seconds"),
        log=log,
    )
    if "crash_after" in knobs:
        loop.call_at(loop.time() + knobs.number("crash_after"), lambda: end(knobs))
    if "unbind" in knobs:
        signal.signal(signal.SIGUSR1, lambda *_: listener.close())
    loop.serve_forever(listener, lambda transport: Connection(backend, loop, transport))


if __name__ == "__main__":
    main()
