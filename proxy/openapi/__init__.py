"""The OpenAPI document's part on the proxy.

The proxy has no views to inspect. Paths, bodies and responses are in the YAML files of this folder,
as OpenAPI. The parts that all operations of a file share (key, parameters, errors) are added here.
The example errors are made from ``proxy.errors``, like the real ones.
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
    StartNotPermitted,
    StoppedByOperator,
)
from instances.names import MAX_NAME_LENGTH, NAME_PATTERN
from llamactl.core.error_format import document_for, family_of
from llamactl.core.errors import (
    InvalidKey,
    InvalidRequest,
    LlamactlError,
    MissingKey,
    UnexpectedFailure,
    UriTooLong,
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
class OperationGroup:
    """The common part of all operations in one YAML file."""

    file: str
    error_path: str
    """A path of this group, which decides the shape of its errors."""
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
    StoppedByOperator(_NAME, 30),
    errors.StartNotRequested(),
    errors.KeyNotCompared(5),
    errors.TooManyOpenFiles(),
    NodeDrained("main"),
)
_ANY: tuple[LlamactlError, ...] = (
    MissingKey(),
    InvalidKey(),
    errors.RequestTooLarge(64 * 1024 * 1024),
    UriTooLong(8000),
    UnexpectedFailure(),
    errors.BackendUnreachable(f"instance {_NAME} runs, but does not answer; see its log"),
    errors.ResponseStopped(_NAME),
    errors.RequestCancelled(),
    errors.BackendStalled(f"the backend of {_NAME} sent nothing for 600 s"),
    errors.ForeignRedirect(_NAME),
    InstanceNotRunning(f"instance {_NAME} is not running; start it first"),
)
_BY_MODEL: tuple[LlamactlError, ...] = (
    *_ANY,
    *_STARTING,
    InvalidRequest(
        'Model name is required: put "model" into the request; GET /v1/models lists the names'
    ),
    errors.InstanceNotPermitted(),
    StartNotPermitted(_NAME),
    errors.ModelNotFound(_NAME),
    errors.ModelNotLoaded(_NAME),
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
    StartNotPermitted(_NAME),
    errors.NotLlamaCpp(_NAME),
)

_NO_SUCH_PATH = errors.PathNotServed(_NAME, "/v1/audio/speech")

_KEYS = {"none": Key.NONE, "management": Key.MANAGEMENT}

GROUPS = {
    group.file: group
    for group in (
        OperationGroup("openai.yaml", "/v1/chat/completions", "OpenAIError", _BY_MODEL),
        OperationGroup(
            "openai_audio.yaml", "/v1/audio", "OpenAIError", (*_BY_MODEL, _NO_SUCH_PATH)
        ),
        OperationGroup("anthropic.yaml", "/v1/messages", "AnthropicError", _BY_MODEL),
        OperationGroup(
            "llama_cpp.yaml",
            f"/llama-cpp/{_NAME}/props",
            "Error",
            (*_LLAMA_CPP, errors.PathNotExposed("/tools"), errors.NoWebUI(_NAME, "/")),
        ),
        OperationGroup(
            "llama_cpp_v1.yaml",
            f"/llama-cpp/{_NAME}/v1/models",
            "OpenAIError",
            (*_LLAMA_CPP, _NO_SUCH_PATH),
        ),
        OperationGroup(
            "router_api.yaml",
            "/props",
            "OpenAIError",
            (
                *_BY_MODEL,
                errors.ControlNotPermitted("/models/load", "can_start"),
                errors.ModelStateUnchanged(is_running=True),
                errors.NoProperties(_NAME),
                errors.PathNotServed(_NAME, "/infill"),
            ),
        ),
        OperationGroup("instance_proxy.yaml", "/api/v1", "Error", _BY_NAME, key=Key.MANAGEMENT),
        OperationGroup(
            "router_models.yaml",
            "/api/v1",
            "Error",
            (*_BY_NAME, errors.NotLlamaCpp(_NAME)),
            key=Key.MANAGEMENT,
        ),
    )
}


def paths() -> Document:
    """The paths of the proxy, with complete operations."""
    return {
        path: {method: _whole(GROUPS[file], path, said) for method, said in operations.items()}
        for file, document in _documents().items()
        for path, operations in document["paths"].items()
    }


def components() -> dict[str, Document]:
    """The components of the paths: schemas, and one response for each error status."""
    schemas: Document = {}
    responses: Document = {}
    for file, document in _documents().items():
        schemas |= document.get("schemas", {})
        responses |= _refusals(GROUPS[file])
    return {"schemas": schemas, "responses": responses}


@cache
def _documents() -> dict[str, Document]:
    return {file: yaml.safe_load((_FOLDER / file).read_text(encoding="utf-8")) for file in GROUPS}


def _whole(group: OperationGroup, path: str, said: Document) -> Document:
    """The operation of the file, completed by the common part of its group.

    ``key`` in a file (none, management) differs from the group's key. ``refusals`` limits the error
    statuses of an operation to some of its group's.
    """
    said = dict(said)
    key = _KEYS.get(said.pop("key", ""), group.key)
    is_open = key is Key.NONE
    statuses = {error.status for error in group.errors} - ({401, 403} if is_open else set())
    statuses &= set(said.pop("refusals", statuses))
    description = said.get("description", "").strip()
    parameters = [_PARAMETERS[name] for name in _PARAMETERS if f"{{{name}}}" in path]
    return {
        **said,
        "description": f"{description}\n\n{key}".strip(),
        "parameters": [*parameters, *said.get("parameters", [])],
        "security": [] if is_open else REQUIREMENT,
        "responses": {
            **said["responses"],
            **{
                str(status): {"$ref": f"#/components/responses/{_refusal_name(group, status)}"}
                for status in sorted(statuses)
            },
        },
    }


def _refusal_name(group: OperationGroup, status: int) -> str:
    stem = group.file.removesuffix(".yaml").title().replace("_", "")
    return f"{stem}{status}"


def _refusals(group: OperationGroup) -> Document:
    return {
        _refusal_name(group, status): _refusal(group, status, examples)
        for status, examples in documented.by_status(group.errors).items()
    }


def _refusal(group: OperationGroup, status: int, examples: list[LlamactlError]) -> Document:
    shape = group.error_schema
    if status == 401 and shape == "Error":
        shape = "AuthenticationError"
    answer: Document = {
        "description": documented.MEANINGS[status],
        "content": {
            "application/json": {
                "schema": documented.reference(shape),
                "examples": {
                    type(error).__name__: {
                        "value": document_for(family_of(group.error_path), error)
                    }
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
