"""How does the embedded server run as a process that can be watched and stopped?

As two processes, because xllamacpp's constructor keeps Python's global lock until the model is
loaded: for minutes nothing in that process could act on a signal, and when llama.cpp aborts, there
is nobody left to say why.

* The *outer* process, whose pid the supervisor knows, reads the flags, checks what is cheap to
  check, passes the log through, and ends on SIGINT or SIGTERM with exit code 0.
* The *inner* process is the server. It ends when its standard input closes, so it can't outlive
  the outer one, however that ends.

Each failure ends with one line ``error: …`` that says what was wrong and what to do. The exit code
is 1 as with llama-server, or 128 + n if signal n ended the server.
"""

# ruff: noqa: T201 - its standard output and error are its interface
from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

if TYPE_CHECKING or __package__:
    from .arguments import INSTALL_HINT, Setting, StartError, help_text, parse
else:  # started by its path: this directory is the first place where modules are looked for
    from arguments import INSTALL_HINT, Setting, StartError, help_text, parse

INNER = "--inner"
"""First argument of the inner process; no flag of llama-server."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TAIL_BYTES = 16 * 1024
"""How much of the end of the log is searched for the reason of a failure."""
PROBE_SECONDS = 5.0
"""How often the inner process looks whether its HTTP server still listens."""

Values = Mapping[str, Any]
"""The last value given for a flag, by the flag's long name."""

EXPLANATIONS: tuple[tuple[str, str], ...] = (
    (
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        "port in use: {host} port {port} can't be bound. Stop the program that holds it or choose "
        "another port.",
    ),
    (
        r"out of memory|insufficient memory|failed to allocate|Cannot allocate memory|bad_alloc"
        r"|mem_buffer != NULL|OutOfDeviceMemory|Insufficient Memory|\bMemoryError\b",
        "out of memory. Use a smaller --ctx-size, fewer --parallel slots, fewer --gpu-layers or a "
        "smaller model, or free memory.",
    ),
    (
        r"system_error'\s+what\(\):\s+Resource temporarily unavailable",
        "out of memory or threads: a limit (ulimit, cgroup) stops the server. Raise it.",
    ),
    (
        r"unknown model architecture: '(?P<name>[^']*)'",
        "model file can't be loaded: this llama.cpp doesn't know the architecture {name}. Update "
        "xllamacpp, or install a newer llama-server.",
    ),
    (
        r"failed to load lora adapter '(?P<path>[^']*)'",
        "model file can't be loaded: {path} is no adapter for this model.",
    ),
    (
        r"failed to load (?:multimodal|draft) model, '(?P<path>[^']*)'",
        "model file can't be loaded: {path} doesn't fit this model, or is damaged.",
    ),
    (
        r"built without SSL support",
        "invalid value for --ssl-cert-file: xllamacpp's server is built without TLS. Install "
        "llama-server, or do without: backends listen on loopback.",
    ),
    (
        r"chat template parsing error",
        "invalid value for --chat-template: the template can't be parsed.",
    ),
    (
        r"failed to (?:download model|fetch model metadata|resolve commit)",
        "model can't be fetched: see the line above. Check its name, the network and, for a "
        "protected model, HF_TOKEN.",
    ),
    (
        r"failed to load model, '(?P<path>[^']*)'",
        "model file can't be loaded: {path} is missing, damaged or incomplete; the lines above "
        "tell. Get it again.",
    ),
)
"""What llama.cpp logs, and what to tell the operator; the first that is found counts."""


def main(arguments: Sequence[str]) -> int:
    """Run as the arguments say; returns the exit code."""
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


def load_xllamacpp() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise StartError(
            f"executable not found: llama-server is not on PATH, and xllamacpp, which stands in "
            f"for it, can't be loaded ({error}). Install one of the two."
        ) from error


# What is checked before anything is loaded.


def check_files(values: Values) -> None:
    """Raise StartError if a model file is missing, unreadable or no GGUF file."""
    model = values.get("--model")
    remote = values.get("--hf-repo") or values.get("--docker-repo")
    if not model and not remote:
        raise StartError(
            "no model given: say which with --model FILE or --hf-repo USER/MODEL. "
            "The embedded server has no router mode, and --model-url needs --model too."
        )
    files = [values.get("--mmproj"), values.get("--spec-draft-model")]
    for flag in ("--lora", "--lora-scaled"):
        files += [path for path, _scale in values.get(flag, [])]
    if not remote and not values.get("--model-url"):
        files.insert(0, model)
    for path in filter(None, files):
        check_gguf(Path(path))


def check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise StartError(f"model file not found: {path.absolute()}. Check the path.") from None
    except OSError as error:
        raise StartError(
            f"model file can't be read: {path.absolute()} ({error.strerror}). It must be a file "
            f"that user {os.getuid()} may read."
        ) from None
    if magic != b"GGUF":
        raise StartError(
            f"model file is no GGUF file: {path.absolute()}. llama.cpp loads GGUF files only; "
            f"convert the model or download it in this format."
        )


def check_address(values: Values) -> None:
    """Raise StartError if the port can't be bound now; llama.cpp would say less, and later."""
    port = values.get("--port", 8080)
    for host in values.get("--host", ["127.0.0.1"]):
        if host.endswith(".sock") or values.get("--reuse-port"):
            continue
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                # As llama-server does; else the remains of closed connections count as use.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise StartError(
                    f"port in use: {host} port {port} belongs to another program. Stop it or "
                    f"choose another port."
                ) from None
            why = error.strerror if isinstance(error, OSError) else error
            raise StartError(f"cannot listen on {host} port {port}: {why}.") from None


# The outer process.


def supervise(arguments: Sequence[str]) -> int:
    """Run the inner process until it ends or a signal comes; returns the exit code.

    1. Block the stop signals, so that the inner process is born with them blocked (it ends with
       its standard input) and none is lost before the handlers stand.
    2. Start it, and take the signals: each of them ends this function with ``SystemExit(0)``.
    3. Pass its log through until it closes, then explain a failure.
    4. Whatever happened, leave no inner process behind.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    inner = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).parent), INNER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # On an abort ggml starts gdb for a backtrace, which buries the reason.
        env={"GGML_NO_BACKTRACE": "1", **os.environ},
    )
    os.environ.pop("LLAMA_API_KEY", None)
    try:
        for stop_signal in STOP_SIGNALS:
            # Also where SIGINT was inherited as ignored, as in a shell's background job.
            signal.signal(stop_signal, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        tail = pass_through(cast("IO[bytes]", inner.stdout).fileno(), sys.stderr.fileno())
        return explain(tail, inner.wait())
    finally:
        inner.kill()
        inner.wait()


def stop(signal_number: int, _frame: FrameType | None) -> None:
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)  # the end is near: a second one adds nothing
    os.write(sys.stderr.fileno(), f"stopped by {signal.Signals(signal_number).name}\n".encode())
    raise SystemExit(0)


def pass_through(source: int, sink: int) -> str:
    """Copy bytes until ``source`` ends; returns the last of them, for ``explain``."""
    tail = b""
    while chunk := os.read(source, 65536):
        tail = (tail + chunk)[-TAIL_BYTES:]
        with contextlib.suppress(OSError):  # a full disk loses log lines, it stops no server
            while chunk:
                chunk = chunk[os.write(sink, chunk) :]
    return tail.decode(errors="replace")


def explain(tail: str, status: int) -> int:
    """See to it that the log of a failure ends with its reason; returns the exit code."""
    lines = tail.splitlines()
    reasons = [line for line in lines if line.startswith("error: ")]
    is_said = bool(reasons) and reasons[-1] == lines[-1]
    if status != 0 and not is_said:
        # llama.cpp's own buffers may have come after the reason, or end in the midst of a line.
        start = "\n" if lines and not tail.endswith("\n") else ""
        reason = reasons[-1] if reasons else f"error: {find_reason(tail, status)}"
        print(start + reason, file=sys.stderr, flush=True)
    return 128 - status if status < 0 else status


def find_reason(tail: str, status: int) -> str:
    for pattern, text in EXPLANATIONS:
        if found := re.search(pattern, tail):
            return text.format(**found.groupdict())
    if status == -signal.SIGKILL:
        return "the server was killed by SIGKILL, possibly by the system for want of memory."
    if status < 0:
        return f"the server was killed by {signal.Signals(-status).name}."
    return "the server ended; the lines above say why."


# The inner process.


def serve(settings: Sequence[Setting]) -> int:
    """Load the model and serve it until standard input closes; returns the exit code."""
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG: while the model loads, nobody here watches standard input.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.environ.pop("LLAMA_API_KEY", None)
    xllamacpp = load_xllamacpp()
    params = xllamacpp.CommonParams()
    # llama-server's defaults, where those of xllamacpp differ
    params.port = 8080
    params.n_parallel = -1
    params.default_template_kwargs = {"preserve_reasoning": "true"}
    for setting in settings:
        setting.apply(params)
    # xllamacpp wants a path, also where llama.cpp finds it out when it has fetched the model
    params.model.path = params.model.path or params.model.hf_repo or params.model.docker_repo
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:  # it says no more than that; ``explain`` finds the reason in the log
        return 1
    status = wait_for_end(sys.stdin.fileno(), server.listening_address)
    # Not by way of the destructor, which waits for requests that are being answered.
    os._exit(status)


def wait_for_end(lifeline: int, address: str) -> int:
    """Return 0 when ``lifeline`` closes, 1 when nothing listens on ``address`` any more."""
    refusals = 0
    while refusals < 2:
        readable, _, _ = select.select([lifeline], [], [], PROBE_SECONDS)
        if readable and not os.read(lifeline, 1):
            return 0
        refusals = refusals + 1 if is_refused(address) else 0
    print("error: the HTTP server has ended; see the lines above.", file=sys.stderr, flush=True)
    return 1


def is_refused(address: str) -> bool:
    """Whether ``http://host:port`` refuses connections; a slow answer is none."""
    url = urlsplit(address)
    if url.scheme == "unix":
        return not Path(url.path).exists()
    try:
        socket.create_connection((url.hostname or "", url.port or 80), timeout=2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


# What it is and what it has.


def print_version() -> int:
    xllamacpp = load_xllamacpp()
    build = xllamacpp.BUILD_INFO
    print(f"version: xllamacpp {xllamacpp.__version__} (llama.cpp commit {build['commit']})")
    print(f"built with {build['compiler']} for {build['build_target']}")
    return 0


def print_devices() -> int:
    """As ``llama-server --list-devices``: processors are no devices to offload to."""
    xllamacpp = load_xllamacpp()
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    print("Available devices:")
    devices = [device for device in xllamacpp.get_device_info() if device["type"] != cpu]
    for device in devices:
        total, free = (device[key] // 2**20 for key in ("memory_total", "memory_free"))
        print(f"  {device['name']}: {device['description']} ({total} MiB, {free} MiB free)")
    if not devices:
        print("  (none)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
