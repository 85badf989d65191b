"""Why did a backend end by itself, and what should the operator do about it?

The programs say it in their last log lines alone, each in its own words. ``SIGNS`` lists these
words: those of llama-server and the embedded server as real runs printed them, those of vLLM,
mlx_lm and docker as their users report them.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class FailureReason(StrEnum):
    """What the API reports as ``reason`` of a failed start or a crash."""

    MODEL_NOT_FOUND = "model_not_found"
    """Also: damaged, of the wrong kind, or not to be fetched."""
    BAD_FLAG = "bad_flag"
    PORT_IN_USE = "port_in_use"
    OUT_OF_MEMORY = "out_of_memory"
    EXECUTABLE_NOT_FOUND = "executable_not_found"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    SUPERVISION = "supervision_failed"
    """A mistake of llamactl's own."""
    HUNG = "hung"
    """It was ready, and then answered nothing any more."""


class Sign(NamedTuple):
    pattern: str
    """Searched in each line of the log."""
    reason: FailureReason
    details: str
    """What to do; ``{name}`` stands for the pattern's group."""


_MODEL = FailureReason.MODEL_NOT_FOUND
_FLAG = FailureReason.BAD_FLAG
_PORT = FailureReason.PORT_IN_USE
_MEMORY = FailureReason.OUT_OF_MEMORY
_PROGRAM = FailureReason.EXECUTABLE_NOT_FOUND

_SAVE_MEMORY = (
    "Out of memory: use a smaller context, fewer parallel slots, fewer GPU layers or a smaller "
    "model, or stop another instance."
)
_SAVE_GPU_MEMORY = (
    "Out of GPU memory: use a smaller max_model_len, another gpu_memory_utilization or more GPUs, "
    "or stop what else uses the GPU."
)
_FETCH = "check its name, the network and, for a protected model, HF_TOKEN."

_EMBEDDED = (
    Sign(r"^error: (?P<own>(?:no model|model file|model can't) .*)", _MODEL, "{own}"),
    Sign(r"^error: (?P<own>unknown argument.*|invalid value for .*)", _FLAG, "{own}"),
    Sign(r"^error: (?P<own>\S+ needs a value.*|cannot listen on .*)", _FLAG, "{own}"),
    Sign(r"^error: (?P<own>port in use.*)", _PORT, "{own}"),
    Sign(r"^error: (?P<own>out of memory.*)", _MEMORY, "{own}"),
    Sign(r"^error: (?P<own>executable not found.*)", _PROGRAM, "{own}"),
)
"""Its last line says what to do."""

_LLAMA_SERVER = (
    Sign(
        r"^error: invalid argument: (?P<flag>.*)",
        _FLAG,
        "llama-server doesn't know {flag}: check the spelling, or update llama.cpp.",
    ),
    Sign(
        r'^error while handling argument "(?P<flag>[^"]*)": (?P<why>.*)',
        _FLAG,
        "llama-server refuses the value of {flag} ({why}): correct it.",
    ),
    Sign(
        r'^error while handling environment variable "(?P<name>[^"]*)": (?P<why>.*)',
        _FLAG,
        "llama-server refuses the value of the environment variable {name} ({why}): correct it.",
    ),
    Sign(
        r"chat template is not supported|chat template parsing error",
        _FLAG,
        "The chat template can't be used: correct chat_template, or leave it out.",
    ),
    Sign(
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        _PORT,
        "{host} port {port} can't be bound: stop the program that holds the port or choose another "
        "one, and check that the host is an address of this node.",
    ),
    Sign(
        r"insufficient memory \(attempted|failed to allocate (?:buffer|compute|\w+ buffer)"
        r"|mmap failed: Cannot allocate memory|mem_buffer != NULL|std::bad_alloc",
        _MEMORY,
        _SAVE_MEMORY,
    ),
    Sign(
        r"cudaMalloc failed: out of memory|CUDA error: out of memory|hipMalloc failed"
        r"|ErrorOutOfDeviceMemory|Insufficient Memory",
        _MEMORY,
        _SAVE_MEMORY,
    ),
    Sign(
        r"what\(\):\s+Resource temporarily unavailable",
        _MEMORY,
        "No memory or no thread was left for the server: raise the limit (ulimit, cgroup).",
    ),
    Sign(
        r"failed to open GGUF file '(?P<path>[^']*)' \((?P<why>[^)]*)\)",
        _MODEL,
        "Model file {path} can't be opened ({why}): check the path on this node.",
    ),
    Sign(
        r"invalid magic characters|failed to read magic",
        _MODEL,
        "The model file is no GGUF file: choose another one, or convert the model.",
    ),
    Sign(
        r"model is corrupted or incomplete",
        _MODEL,
        "The model file is damaged or incomplete: get it again.",
    ),
    Sign(
        r"unknown model architecture: '(?P<name>[^']*)'",
        _MODEL,
        "This llama.cpp doesn't know the model architecture {name}: update it.",
    ),
    Sign(
        r"failed to load lora adapter '(?P<path>[^']*)'",
        _MODEL,
        "LoRA adapter {path} can't be loaded: check the path, and that it fits the model.",
    ),
    Sign(
        r"failed to load (?P<kind>multimodal|draft) model, '(?P<path>[^']*)'",
        _MODEL,
        "The {kind} model {path} can't be loaded: check the path, and that it fits the model.",
    ),
    Sign(
        r"failed to resolve commit for (?P<name>\S+)",
        _MODEL,
        f"Model {{name}} can't be fetched: {_FETCH}",
    ),
    Sign(
        r"failed to download model|failed to fetch model metadata"
        r"|exactly one out metadata, path_model, and file must be defined",
        _MODEL,
        f"The model can't be fetched: {_FETCH}",
    ),
)

_PYTHON_SERVERS = (
    Sign(
        r"error: unrecognized arguments: (?P<flags>.*)",
        _FLAG,
        "The backend doesn't know {flags}: check the spelling, or update the backend.",
    ),
    Sign(
        r"error: argument (?P<flag>\S+): (?P<why>.*)",
        _FLAG,
        "The backend refuses the value of {flag} ({why}): correct it.",
    ),
    Sign(
        r"error: (?P<why>(?:the following arguments are required|ambiguous option): .*)",
        _FLAG,
        "The backend refuses its arguments: {why}.",
    ),
    Sign(
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory|No available memory for the cache",
        _MEMORY,
        _SAVE_GPU_MEMORY,
    ),
    Sign(
        r"less than desired GPU memory utilization|larger than the available KV cache memory"
        r"|larger than the maximum number of tokens that can be stored in KV cache",
        _MEMORY,
        _SAVE_GPU_MEMORY,
    ),
    Sign(
        r"\[metal::malloc\]|^MemoryError|Cannot allocate memory",
        _MEMORY,
        "Out of memory: use a smaller context or a smaller model, or stop another instance.",
    ),
    Sign(
        r"[Aa]ddress already in use",
        _PORT,
        "The port is taken: stop the program that holds it, or choose another port.",
    ),
    Sign(
        r"GatedRepoError|[Cc]annot access gated repo",
        _MODEL,
        "The model is protected: ask for access at Hugging Face and set HF_TOKEN.",
    ),
    Sign(
        r"RepositoryNotFoundError|Repository Not Found",
        _MODEL,
        f"Hugging Face has no such model: {_FETCH}",
    ),
    Sign(
        r"(?:Invalid repository ID or local directory .*|Repo id must .*): '(?P<name>[^']*)'",
        _MODEL,
        "Model {name} is neither a directory with a model nor a name at Hugging Face: check it.",
    ),
    Sign(
        r"(?:LocalEntryNotFoundError|Can't load the (?:configuration|model|tokenizer))",
        _MODEL,
        f"The model can't be fetched: {_FETCH}",
    ),
    Sign(
        r"Model not found for path or HF repo: (?P<name>\S+?)\.?$",
        _MODEL,
        "Model {name} is neither a directory with a model nor a name at Hugging Face: check it.",
    ),
    Sign(
        r"No safetensors found in (?P<path>.*)",
        _MODEL,
        "{path} has no model in it: check the path on this node.",
    ),
    Sign(
        r"FileNotFoundError: .*: '(?P<path>[^']*(?:config\.json|\.safetensors|\.gguf))'",
        _MODEL,
        "Model file {path} doesn't exist: check the path on this node.",
    ),
    Sign(
        r"No module named '?(?P<name>vllm|mlx_lm|mlx)\b",
        _PROGRAM,
        "Python has no module {name}: install it, or set the backend's command.",
    ),
)

_STARTING = (
    Sign(
        r"error while loading shared libraries: (?P<name>[^:]+)",
        _PROGRAM,
        "The program needs the library {name}: install it, or set LD_LIBRARY_PATH.",
    ),
    Sign(
        r"executable file not found|^\S*sh: .*not found$|^env: .*No such file or directory$",
        _PROGRAM,
        "The program doesn't exist: install it, or set the backend's command.",
    ),
    Sign(
        r"port is already allocated",
        _PORT,
        "The port is taken: stop the program that holds it, or choose another port.",
    ),
    Sign(
        r"pull access denied|manifest unknown|manifest for \S+ not found",
        _PROGRAM,
        "The docker image can't be fetched: check docker.image in the config and the network.",
    ),
    Sign(
        r"Cannot connect to the Docker daemon|permission denied while trying to connect to the"
        r" [Dd]ocker",
        _PROGRAM,
        "Docker can't be reached: start it, and let this user use it.",
    ),
)

SIGNS: tuple[Sign, ...] = (*_EMBEDDED, *_LLAMA_SERVER, *_PYTHON_SERVERS, *_STARTING)

_EXIT_CODES = {126: "can't be executed", 127: "doesn't exist"}
"""What shells, env and docker report of a program that they could not start."""


def classify_exit(
    *, exit_code: int | None, signal: int | None, log_tail: Sequence[str]
) -> tuple[FailureReason, str]:
    """The reason of an exit that nobody asked for, and a sentence that says what to do.

    ``exit_code`` or ``signal`` is how the process ended, None if that isn't known; ``log_tail``
    its last log lines, oldest first, of this run alone. The last line that says anything counts:
    what programs print after the cause are consequences and usage texts.
    """
    for line in reversed(log_tail):
        for sign in SIGNS:
            if found := re.search(sign.pattern, line.rstrip()):
                details = sign.details.format(**found.groupdict())
                return sign.reason, details[:1].upper() + details[1:]
    if exit_code in _EXIT_CODES:
        how = f"The program {_EXIT_CODES[exit_code]} (exit code {exit_code})"
        return _PROGRAM, f"{how}: install it, or set the backend's command."
    return FailureReason.CRASHED, describe_end(exit_code, signal)


def describe_end(exit_code: int | None, signal: int | None) -> str:
    """A sentence that says how a process ended and where to look; arguments as above."""
    if signal is None and exit_code is not None and exit_code > 128:
        signal = exit_code - 128  # how shells, docker and the embedded server report a signal
    look = "look at the end of the log."
    if signal == signals.SIGKILL:
        return f"Killed by SIGKILL (possibly the system's out-of-memory killer): {look}"
    if signal is not None:
        try:
            name = signals.Signals(signal).name
        except ValueError:
            name = f"signal {signal}"
        return f"Killed by {name}: {look}"
    if exit_code is None:
        return f"Ended, it is not known how: {look}"
    return f"Ended with exit code {exit_code}: {look}"
