"""The last line of a failure's log: what llama.cpp logged, put as advice for the operator."""

# ruff: noqa: T201 - standard output and error are the program's interface
from __future__ import annotations

import re
import signal
import sys

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
"""Pattern of llama.cpp's log → advice for the operator; the first pattern found counts."""


def explain(tail: str, status: int) -> int:
    """Make the log of a failure end with its reason; return the exit code."""
    lines = tail.splitlines()
    reasons = [line for line in lines if line.startswith("error: ")]
    is_told = bool(reasons) and reasons[-1] == lines[-1]
    if status != 0 and not is_told:
        # llama.cpp's buffers may be flushed after the reason, and end in the middle of a line.
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
