"""Schemas of the error documents, descriptions by status, and common examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llamactl.api.json_parser import MAX_BODY_BYTES
from llamactl.core.error_format import seed_document
from llamactl.core.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    InvalidKey,
    LlamactlError,
    MissingKey,
)

_START_FIELDS: dict[str, Any] = {
    "reason": {
        "type": "string",
        "description": "For a failed start: a code such as out_of_memory.",
    },
    "exit_code": {
        "type": ["integer", "null"],
        "description": "For a failed start: the exit code of the backend.",
    },
    "log_tail": {
        "type": "array",
        "items": {"type": "string"},
        "description": "For a failed start: the last lines of the backend's log.",
    },
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": {
        "type": "object",
        "description": "An error of the management API and of `/llama-cpp`.",
        "properties": {
            "error": {
                "type": "string",
                "description": "A code for programs, such as invalid_instance.",
            },
            "details": {
                "type": "string",
                "description": "A sentence for people: the problem, and the remedy.",
            },
            **_START_FIELDS,
            **{
                kind: {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/Finding"},
                    "description": "For options that `strict=true` refuses: the findings.",
                }
                for kind in ("errors", "warnings")
            },
        },
        "required": ["error", "details"],
    },
    "AuthenticationError": {
        "type": "object",
        "description": "A missing or wrong key, outside of `/v1`.",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {
                        "type": "string",
                        "enum": [MissingKey().details, InvalidKey().details],
                    },
                    "type": {"type": "string", "const": "authentication_error"},
                },
                "required": ["message", "type"],
            }
        },
        "required": ["error"],
    },
    "OpenAIError": {
        "type": "object",
        "description": "An error below `/v1`, in OpenAI's shape.",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {
                        "type": "string",
                        "description": "A sentence for people: the problem, and the remedy.",
                    },
                    "type": {"type": "string", "examples": ["invalid_request_error"]},
                    "param": {"type": ["string", "null"]},
                    "code": {
                        "type": ["string", "integer", "null"],
                        "description": "A code for programs; some backends send a status.",
                    },
                    **_START_FIELDS,
                },
                "required": ["message", "type"],
            }
        },
        "required": ["error"],
    },
    "AnthropicError": {
        "type": "object",
        "description": "An error below `/v1/messages`, in Anthropic's shape.",
        "properties": {
            "type": {"type": "string", "const": "error"},
            "error": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "examples": ["not_found_error"]},
                    "message": {
                        "type": "string",
                        "description": "A sentence for people: the problem, and the remedy.",
                    },
                    "code": {"type": "string", "description": "A code for programs."},
                    **_START_FIELDS,
                },
                "required": ["type", "message"],
            },
        },
        "required": ["type", "error"],
    },
}

MEANINGS = {
    200: "Done.",
    201: "Created.",
    204: "Done; the response has no body.",
    400: "A field, a parameter or the body breaks a rule, named in the text.",
    401: "The key is missing or wrong.",
    403: "The key does not open this instance.",
    404: "Not found.",
    409: "Not possible in the current state.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    500: "A program failed, or llamactl did (see its log).",
    501: "Not supported by the web server in use.",
    502: "The backend failed to start (the error has the reason), or broke off its response.",
    503: "Not ready yet, stopped, or not reachable; `Retry-After` is the time until the next try.",
    504: "The backend was silent beyond a timeout.",
}

WITHOUT_A_KEY: list[dict[str, Any]] = [seed_document(MissingKey()), seed_document(InvalidKey())]
TOO_LARGE = BodyTooLarge(f"Invalid request body: it must have at most {MAX_BODY_BYTES} bytes")
NO_DATABASE = DatabaseUnavailable()

RETRY_AFTER = "Retry-After"
RETRY_AFTER_MEANING = "Seconds after which the same request may succeed."


def reference(name: str) -> dict[str, str]:
    """Refer to a schema in ``components``."""
    return {"$ref": f"#/components/schemas/{name}"}


def by_status(errors: Iterable[LlamactlError]) -> dict[int, list[LlamactlError]]:
    """Group errors by status."""
    grouped: dict[int, list[LlamactlError]] = {}
    for error in errors:
        grouped.setdefault(error.status, []).append(error)
    return grouped
