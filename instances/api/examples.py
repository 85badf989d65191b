"""Examples of requests and responses of the instances, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from instances.backends.failure_signs import FailureReason
from instances.backends.registry import BACKENDS
from instances.errors import (
    BackendStartFailed,
    BackendStartTimeout,
    NoCapacity,
    PreflightFailed,
    StoppedByOperator,
)
from instances.states import ON_DEMAND

NAME = "gemma"

_NEW: dict[str, dict[str, Any]] = {
    title: dict(document)
    for backend in BACKENDS.values()
    for title, document in backend.example_instances.items()
}
_FIRST = next(iter(_NEW.values()))

NEW_INSTANCES: dict[str, object] = {
    **_NEW,
    "in a folder of its own, with limits": {
        **_FIRST,
        "working_directory": "/srv/gemma",
        "limits": {"nice": 10, "cpus": "0-3", "memory_mb": 8192, "core_dumps": False},
    },
}

_STOPPED: dict[str, Any] = {
    "id": 1,
    "name": NAME,
    "status": "stopped",
    "created": 1765217762,
    "options": {
        "backend_type": _FIRST["backend_type"],
        "backend_options": {**_FIRST["backend_options"], "port": 8000},
        "nodes": ["main"],
        "auto_restart": True,
        "max_restarts": 3,
        "restart_delay": 5,
        "on_demand_start": True,
        "idle_timeout": 0,
    },
    "desired_state": "stopped",
    "requested_by": "",
    "wish_cause": "",
    "queue": None,
    "last_used_at": None,
    "pid": None,
    "restarts": 0,
    "failure": None,
    "hold": None,
}
_LOG_TAIL = ["ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory"]
_OUT_OF_MEMORY = (
    "Out of memory: use a smaller context, fewer parallel slots, fewer GPU layers or a smaller"
    " model, or stop another instance."
)
_CRASH: dict[str, Any] = {
    "reason": FailureReason.OUT_OF_MEMORY.value,
    "exit_code": 1,
    "log_tail": _LOG_TAIL,
}

_STARTED = {
    **_STOPPED,
    "desired_state": "running",
    "requested_by": "api",
    "wish_cause": "api",
}

STOPPED: dict[str, object] = {
    "stopped": {
        **_STOPPED,
        "requested_by": "api",
        "wish_cause": "api",
        "hold": {"until": 1765217830, "reason": StoppedByOperator.code},
    }
}
STARTING: dict[str, object] = {
    "starting": {**_STARTED, "status": "starting"},
    "waiting for capacity": {
        **_STARTED,
        "status": "starting",
        "queue": {
            "place": 1,
            "length": 2,
            "reason": "max_running_instances (1) is reached; waiting for qwen (2 requests)",
        },
    },
    "running": {**_STARTED, "status": "running", "last_used_at": 1765217800, "pid": 4711},
}
ANY_STATUS: dict[str, object] = {
    "running": STARTING["running"],
    "failed": {
        **_STOPPED,
        "status": "failed",
        "desired_state": "running",
        "requested_by": ON_DEMAND,
        "wish_cause": ON_DEMAND,
        "failure": {**_CRASH, "details": _OUT_OF_MEMORY},
        "hold": {"until": 1765217805, "reason": BackendStartFailed.code},
    },
}

_NO_SUCH_MODEL = {
    "field": "backend_options.model",
    "severity": "error",
    "message": "'/models/gemma.gguf' does not exist",
    "suggestion": "did you mean '/models/gemma-3.gguf'?",
}
_NO_SUCH_FLAG = {
    "field": "backend_options.extra_args.ctx_sise",
    "severity": "warning",
    "message": "--ctx-sise is not in the help of '/usr/local/bin/llama-server'",
    "suggestion": "did you mean --ctx-size?",
}
SAVED: dict[str, object] = {
    "stopped": _STOPPED,
    "with warnings": {**_STOPPED, "warnings": [_NO_SUCH_MODEL, _NO_SUCH_FLAG]},
}
UPDATED: dict[str, object] = {
    "unchanged": {**_STOPPED, "changed": False, "restarted": False},
    "restarted": {
        **_STARTED,
        "status": "starting",
        "warnings": [_NO_SUCH_FLAG],
        "changed": True,
        "restarted": True,
    },
}
DRY_RUN: dict[str, object] = {
    "a dry run": {
        "command": [
            *("/usr/local/bin/llama-server", "--model", "/models/gemma.gguf"),
            *("--alias", NAME, "--host", "127.0.0.1", "--port", "8000", "--ctx-sise", "8192"),
        ],
        "command_line": "CUDA_VISIBLE_DEVICES=0 /usr/local/bin/llama-server --model"
        " /models/gemma.gguf --alias gemma --host 127.0.0.1 --port 8000 --ctx-sise 8192",
        "environment": {"CUDA_VISIBLE_DEVICES": "0", "LLAMA_API_KEY": "***"},
        "inherited_environment": ["HOME", "PATH"],
        "working_directory": "/home/me/.local/share/llamactl",
        "options": {
            **_STOPPED["options"],
            "backend_options": {
                "model": "/models/gemma.gguf",
                "extra_args": {"ctx_sise": "8192"},
                "port": 8000,
            },
            "environment": {"CUDA_VISIBLE_DEVICES": "0"},
        },
        "errors": [_NO_SUCH_MODEL],
        "warnings": [_NO_SUCH_FLAG],
    }
}
REFUSED_BY_STRICT = PreflightFailed(
    f"{_NO_SUCH_MODEL['field']}: {_NO_SUCH_MODEL['message']}; {_NO_SUCH_MODEL['suggestion']}",
    errors=[_NO_SUCH_MODEL],
    warnings=[_NO_SUCH_FLAG],
)

START_FAILED = BackendStartFailed(_OUT_OF_MEMORY, **_CRASH)
STILL_STARTING = BackendStartTimeout(
    f"instance {NAME} is still starting after 10 s; the start continues; GET the instance for its"
    " status",
    reason=FailureReason.TIMEOUT.value,
    exit_code=None,
    log_tail=[],
    retry_after=5,
)

LOG: dict[str, object] = {
    "llama.cpp": "main: loading model\nmain: server is listening on http://127.0.0.1:8000\n"
}
FOLLOWED_LOG: dict[str, object] = {
    "followed": "retry: 1000\n\nid: 1a2b3c-1-23\ndata: main: loading model\n\n: still there\n\n"
}
NO_CAPACITY = NoCapacity(
    NAME, "max_running_instances (1) is reached; waiting for qwen (pinned: never preempted)"
)
