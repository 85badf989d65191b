"""Signs of failure of llama-server and of the embedded server, as real runs printed them."""

from __future__ import annotations

from instances.backends.failure_signs import DOWNLOAD_ADVICE, FailureReason, FailureSign

_SAVE_MEMORY = (
    "Out of memory: use a smaller context, fewer parallel slots, fewer GPU layers or a smaller "
    "model, or stop another instance."
)

EMBEDDED_SIGNS: tuple[FailureSign, ...] = (
    FailureSign(
        r"^error: (?P<own>(?:no model|model file|model can't) .*)",
        FailureReason.MODEL_NOT_FOUND,
        "{own}",
    ),
    FailureSign(
        r"^error: (?P<own>unknown argument.*|invalid value for .*)",
        FailureReason.BAD_FLAG,
        "{own}",
    ),
    FailureSign(
        r"^error: (?P<own>\S+ needs a value.*|cannot listen on .*)",
        FailureReason.BAD_FLAG,
        "{own}",
    ),
    FailureSign(
        r"^error: (?P<own>port in use.*)",
        FailureReason.PORT_IN_USE,
        "{own}",
    ),
    FailureSign(
        r"^error: (?P<own>out of memory.*)",
        FailureReason.OUT_OF_MEMORY,
        "{own}",
    ),
    FailureSign(
        r"^error: (?P<own>executable not found.*)",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "{own}",
    ),
)
"""The last line of the embedded server is the advice."""

LLAMA_SERVER_SIGNS: tuple[FailureSign, ...] = (
    FailureSign(
        r"^error: invalid argument: (?P<flag>.*)",
        FailureReason.BAD_FLAG,
        "llama-server doesn't know {flag}: check the spelling, or update llama.cpp.",
    ),
    FailureSign(
        r'^error while handling argument "(?P<flag>[^"]*)": (?P<why>.*)',
        FailureReason.BAD_FLAG,
        "llama-server refuses the value of {flag} ({why}): correct it.",
    ),
    FailureSign(
        r'^error while handling environment variable "(?P<name>[^"]*)": (?P<why>.*)',
        FailureReason.BAD_FLAG,
        "llama-server refuses the value of the environment variable {name} ({why}): correct it.",
    ),
    FailureSign(
        r"chat template is not supported|chat template parsing error",
        FailureReason.BAD_FLAG,
        "The chat template can't be used: correct chat_template, or leave it out.",
    ),
    FailureSign(
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        FailureReason.PORT_IN_USE,
        "{host} port {port} can't be bound: stop the program that holds the port or choose another "
        "one, and check that the host is an address of this node.",
    ),
    FailureSign(
        r"insufficient memory \(attempted|failed to allocate (?:buffer|compute|\w+ buffer)"
        r"|mmap failed: Cannot allocate memory|mem_buffer != NULL|std::bad_alloc",
        FailureReason.OUT_OF_MEMORY,
        _SAVE_MEMORY,
    ),
    FailureSign(
        r"cudaMalloc failed: out of memory|CUDA error: out of memory|hipMalloc failed"
        r"|ErrorOutOfDeviceMemory|Insufficient Memory",
        FailureReason.OUT_OF_MEMORY,
        _SAVE_MEMORY,
    ),
    FailureSign(
        r"what\(\):\s+Resource temporarily unavailable",
        FailureReason.OUT_OF_MEMORY,
        "No memory or no thread was left for the server: raise the limit (ulimit, cgroup).",
    ),
    FailureSign(
        r"failed to open GGUF file '(?P<path>[^']*)' \((?P<why>[^)]*)\)",
        FailureReason.MODEL_NOT_FOUND,
        "Model file {path} can't be opened ({why}): check the path on this node.",
    ),
    FailureSign(
        r"invalid magic characters|failed to read magic",
        FailureReason.MODEL_NOT_FOUND,
        "The model file is no GGUF file: choose another one, or convert the model.",
    ),
    FailureSign(
        r"model is corrupted or incomplete",
        FailureReason.MODEL_NOT_FOUND,
        "The model file is damaged or incomplete: get it again.",
    ),
    FailureSign(
        r"unknown model architecture: '(?P<name>[^']*)'",
        FailureReason.MODEL_NOT_FOUND,
        "This llama.cpp doesn't know the model architecture {name}: update it.",
    ),
    FailureSign(
        r"failed to load lora adapter '(?P<path>[^']*)'",
        FailureReason.MODEL_NOT_FOUND,
        "LoRA adapter {path} can't be loaded: check the path, and that it fits the model.",
    ),
    FailureSign(
        r"failed to load (?P<kind>multimodal|draft) model, '(?P<path>[^']*)'",
        FailureReason.MODEL_NOT_FOUND,
        "The {kind} model {path} can't be loaded: check the path, and that it fits the model.",
    ),
    FailureSign(
        r"failed to resolve commit for (?P<name>\S+)",
        FailureReason.MODEL_NOT_FOUND,
        f"Model {{name}} can't be fetched: {DOWNLOAD_ADVICE}",
    ),
    FailureSign(
        r"failed to download model|failed to fetch model metadata"
        r"|exactly one out metadata, path_model, and file must be defined",
        FailureReason.MODEL_NOT_FOUND,
        f"The model can't be fetched: {DOWNLOAD_ADVICE}",
    ),
)
