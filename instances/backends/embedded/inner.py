"""The inner process: xllamacpp's server, and the facts that xllamacpp tells."""

# ruff: noqa: T201 - standard output and error are the program's interface
from __future__ import annotations

import ctypes
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING or __package__:
    from .arguments import Setting
    from .start_error import StartError
else:
    from arguments import Setting
    from start_error import StartError

PROBE_SECONDS = 5.0
"""Interval at which the inner process checks that its HTTP server still listens."""


def load_xllamacpp() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise StartError(
            f"executable not found: llama-server is not on PATH, and xllamacpp, which stands in "
            f"for it, can't be loaded ({error}). Install one of the two."
        ) from error


def serve(settings: Sequence[Setting]) -> int:
    """Load the model and serve it until standard input closes; return the exit code."""
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG: standard input is not watched while the model loads.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.environ.pop("LLAMA_API_KEY", None)
    xllamacpp = load_xllamacpp()
    params = xllamacpp.CommonParams()
    # llama-server's defaults where xllamacpp's differ
    params.port = 8080
    params.n_parallel = -1
    params.default_template_kwargs = {"preserve_reasoning": "true"}
    for setting in settings:
        setting.apply(params)
    # xllamacpp requires a path, even of a model that llama.cpp downloads to a path of its own
    params.model.path = params.model.path or params.model.hf_repo or params.model.docker_repo
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:  # without details: ``explain`` finds the reason in the log
        return 1
    status = wait_for_end(sys.stdin.fileno(), server.listening_address)
    # Not through the destructor, which waits for requests in flight.
    os._exit(status)


def wait_for_end(lifeline: int, address: str) -> int:
    """Return 0 when ``lifeline`` closes, 1 when ``address`` no longer accepts connections."""
    refusals = 0
    while refusals < 2:
        readable, _, _ = select.select([lifeline], [], [], PROBE_SECONDS)
        if readable and not os.read(lifeline, 1):
            return 0
        refusals = refusals + 1 if is_refused(address) else 0
    print("error: the HTTP server has ended; see the lines above.", file=sys.stderr, flush=True)
    return 1


def is_refused(address: str) -> bool:
    """Tell whether ``http://host:port`` refuses connections; a slow answer is no refusal."""
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


def print_version() -> int:
    xllamacpp = load_xllamacpp()
    build = xllamacpp.BUILD_INFO
    print(f"version: xllamacpp {xllamacpp.__version__} (llama.cpp commit {build['commit']})")
    print(f"built with {build['compiler']} for {build['build_target']}")
    return 0


def print_devices() -> int:
    """Print as ``llama-server --list-devices`` does: without processors."""
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
