"""What does the OpenAPI document say of the requests that the proxy answers?

It has no views to be asked. Paths, bodies and answers stand in the YAML files beside this one, in
OpenAPI's own words; what all operations of a side have in common (key, parameters, errors) is
added here. The errors are made by ``proxy.errors``, which makes the real ones, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from instances.errors import (
    BackendStartFailed,
    BackendStartTimeout,
    InstanceNotFound,
    InstanceNotRunning,
    InstanceShuttingDown,
    InvalidInstanceName,
)
from instances.names import MAX_NAME_LENGTH, NAME_PATTERN
from llamactl.core.error_format import document_for, family_of
from llamactl.core.errors import (
    InvalidKey,
    InvalidRequest,
    LlamactlError,
    MissingKey,
    UnexpectedFailure,
)
from llamactl.openapi import errors as documented
from llamactl.openapi.keys import REQUIREMENT, Key
from nodes.errors import NodeDrained
from proxy import errors

Document = dict[str, Any]

_FOLDER = Path(__file__).parent
_NAME = "gemma"
_PARAMETERS: dict[str, Document] = {
    "name": {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "The instance.",
        "schema": {"type": "string", "pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME_LENGTH},
        "example": _NAME,
    },
    "path": {
        "name": "path",
        "in": "path",
        "required": True,
        "description": "A path of the backend; it may have slashes in it.",
        "schema": {"type": "string"},
        "example": "health",
    },
    "model": {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "The id that the list has. Its slashes need not be escaped.",
        "schema": {"type": "string"},
        "example": _NAME,
    },
    "slot": {
        "name": "slot",
        "in": "path",
        "required": True,
        "description": "The slot's id in the list of slots.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 9999},
        "example": 0,
    },
}


@dataclass(frozen=True)
class PathFamily:
    """What the operations of one YAML file have in common."""

    file: str
    error_path: str
    """A path of this side: it decides what an error looks like."""
    error_schema: str
    errors: tuple[LlamactlError, ...]
    key: Key = Key.INFERENCE


_START_FAILED = BackendStartFailed(
    "The model file does not exist: /models/gemma.gguf",
    reason="model_not_found",
    exit_code=1,
    log_tail=["error: model file /models/gemma.gguf does not exist"],
)
_STARTING: tuple[LlamactlError, ...] = (
    _START_FAILED,
    BackendStartTimeout(
        f"instance {_NAME} is still loading after 120 s; try again later, or raise"
        " instances.on_demand_start_timeout",
        reason="timeout",
        exit_code=None,
        log_tail=[],
        retry_after=30,
    ),
    InstanceShuttingDown(
        f"instance {_NAME} is shutting down; try again in a few seconds", retry_after=5
    ),
    errors.StartNotRequested(),
    errors.TooManyOpenFiles(),
    NodeDrained("main"),
)
_ANY: tuple[LlamactlError, ...] = (
    MissingKey(),
    InvalidKey(),
    errors.RequestTooLarge(64 * 1024 * 1024),
    errors.UriTooLong(8000),
    UnexpectedFailure(),
    errors.BackendUnreachable(f"instance {_NAME} runs, but does not answer; see its log"),
    errors.BackendStalled(f"the backend of {_NAME} sent nothing for 600 s"),
    InstanceNotRunning(f"instance {_NAME} is not running; start it first"),
)
_BY_MODEL: tuple[LlamactlError, ...] = (
    *_ANY,
    *_STARTING,
    InvalidRequest(
        'Model name is required: put "model" into the request; GET /v1/models lists the names'
    ),
    errors.InstanceNotPermitted(),
    errors.ModelNotFound(_NAME),
)
_BY_NAME: tuple[LlamactlError, ...] = (
    *_ANY,
    InvalidInstanceName("name too long (max 50 characters)"),
    InstanceNotFound(_NAME),
)
_LLAMA_CPP: tuple[LlamactlError, ...] = (
    *_BY_NAME,
    *_STARTING,
    errors.InstanceNotPermitted(),
    errors.NotLlamaCpp(_NAME),
)

SIDES = {
    side.file: side
    for side in (
        PathFamily("openai.yaml", "/v1/chat/completions", "OpenAIError", _BY_MODEL),
        PathFamily("openai_audio.yaml", "/v1/audio", "OpenAIError", _BY_MODEL),
        PathFamily("anthropic.yaml", "/v1/messages", "AnthropicError", _BY_MODEL),
        PathFamily(
            "llama_cpp.yaml",
            f"/llama-cpp/{_NAME}/props",
            "Error",
            (*_LLAMA_CPP, errors.PathNotExposed("/tools"), errors.NoWebUI(_NAME, "/")),
        ),
        PathFamily("llama_cpp_v1.yaml", f"/llama-cpp/{_NAME}/v1/models", "OpenAIError", _LLAMA_CPP),
        PathFamily("instance_proxy.yaml", "/api/v1", "Error", _BY_NAME, key=Key.MANAGEMENT),
    )
}


def paths() -> Document:
    """The paths of the proxy, each operation whole."""
    return {
        path: {method: _whole(SIDES[file], path, said) for method, said in operations.items()}
        for file, document in _documents().items()
        for path, operations in document["paths"].items()
    }


def components() -> dict[str, Document]:
    """The components that these paths refer to: schemas, and one answer for each refusal."""
    schemas: Document = {}
    responses: Document = {}
    for file, document in _documents().items():
        schemas |= document.get("schemas", {})
        responses |= _refusals(SIDES[file])
    return {"schemas": schemas, "responses": responses}


@cache
def _documents() -> dict[str, Document]:
    return {file: yaml.safe_load((_FOLDER / file).read_text(encoding="utf-8")) for file in SIDES}


def _whole(side: PathFamily, path: str, said: Document) -> Document:
    """The operation as its file says it, and what its side says of all of its operations.

    ``key: none`` in a file is an operation that needs no key; ``refusals`` are the statuses that
    it can be refused with, where that are not all of its side.
    """
    said = dict(said)
    is_open = said.pop("key", "") == "none"
    statuses = {error.status for error in side.errors} - ({401, 403} if is_open else set())
    statuses &= set(said.pop("refusals", statuses))
    description = said.get("description", "").strip()
    key = Key.NONE if is_open else side.key
    parameters = [_PARAMETERS[name] for name in _PARAMETERS if f"{{{name}}}" in path]
    return {
        **said,
        "description": f"{description}\n\n{key}".strip(),
        "parameters": [*parameters, *said.get("parameters", [])],
        "security": [] if is_open else REQUIREMENT,
        "responses": {
            **said["responses"],
            **{
                str(status): {"$ref": f"#/components/responses/{_refusal_name(side, status)}"}
                for status in sorted(statuses)
            },
        },
    }


def _refusal_name(side: PathFamily, status: int) -> str:
    stem = side.file.removesuffix(".yaml").title().replace("_", "")
    return f"{stem}{status}"


def _refusals(side: PathFamily) -> Document:
    return {
        _refusal_name(side, status): _refusal(side, status, examples)
        for status, examples in documented.by_status(side.errors).items()
    }


def _refusal(side: PathFamily, status: int, examples: list[LlamactlError]) -> Document:
    shape = side.error_schema
    if status == 401 and shape == "Error":
        shape = "AuthenticationError"
    answer: Document = {
        "description": documented.MEANINGS[status],
        "content": {
            "application/json": {
                "schema": documented.reference(shape),
                "examples": {
                    type(error).__name__: {"value": document_for(family_of(side.error_path), error)}
                    for error in examples
                },
            }
        },
    }
    if any(error.retry_after is not None for error in examples):
        answer["headers"] = {
            documented.RETRY_AFTER: {
                "description": documented.RETRY_AFTER_MEANING,
                "schema": {"type": "integer"},
            }
        }
    return answer
