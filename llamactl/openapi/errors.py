"""How do errors look: their schemas, and examples that the errors themselves make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llamactl.api.json_parser import MAX_BODY_BYTES
from llamactl.core.errors import BodyTooLarge, DatabaseUnavailable, LlamactlError

_START_FIELDS: dict[str, Any] = {
    "reason": {
        "type": "string",
        "description": "Of a failed start: a code for programs, such as out_of_memory.",
    },
    "exit_code": {"type": ["integer", "null"], "description": "Of a failed start."},
    "log_tail": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Of a failed start: the last lines that the backend wrote.",
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
                "description": "A sentence for people: what is wrong, and what to do.",
            },
            **_START_FIELDS,
            **{
                kind: {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/Finding"},
                    "description": "Of options that strict refuses: what a check finds.",
                }
                for kind in ("errors", "warnings")
            },
        },
        "required": ["error", "details"],
    },
    "AuthenticationError": {
        "type": "object",
        "description": "What a request without a good key gets outside of `/v1`.",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {
                        "type": "string",
                        "enum": ["Missing API key", "Invalid API key"],
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
        "description": "An error below `/v1`, as OpenAI's clients expect it.",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {
                        "type": "string",
                        "description": "A sentence for people: what is wrong, and what to do.",
                    },
                    "type": {"type": "string", "examples": ["invalid_request_error"]},
                    "param": {"type": ["string", "null"]},
                    "code": {
                        "type": ["string", "integer", "null"],
                        "description": "A code for programs; some backends send the status.",
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
        "description": "An error below `/v1/messages`, as Anthropic's clients expect it.",
        "properties": {
            "type": {"type": "string", "const": "error"},
            "error": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "examples": ["not_found_error"]},
                    "message": {
                        "type": "string",
                        "description": "A sentence for people: what is wrong, and what to do.",
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
    200: "It was done.",
    201: "It was made.",
    204: "It was done, and there is nothing to tell of it.",
    400: "A field, a parameter or the body breaks a rule; the text names it.",
    401: "The key is missing or wrong.",
    403: "The key is not for this instance.",
    404: "There is no such thing.",
    409: "Not in the state that things are in now.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    500: "A program that was asked failed, or llamactl has a fault (see its log).",
    501: "Not under the server that llamactl runs under.",
    502: "The backend failed to start, and the error says why; or it broke off its answer.",
    503: "Not ready yet, or not reachable now; Retry-After says when to try again.",
    504: "The backend is there, and was silent for longer than it may be.",
}

WITHOUT_A_KEY = [
    {"error": {"message": f"{what} API key", "type": "authentication_error"}}
    for what in ("Missing", "Invalid")
]
TOO_LARGE = BodyTooLarge(f"Invalid request body: it must have at most {MAX_BODY_BYTES} bytes")
NO_DATABASE = DatabaseUnavailable()

RETRY_AFTER = "Retry-After"
RETRY_AFTER_MEANING = "Seconds after which the same request may succeed."


def reference(name: str) -> dict[str, str]:
    """A schema that stands in ``components``."""
    return {"$ref": f"#/components/schemas/{name}"}


def by_status(errors: Iterable[LlamactlError]) -> dict[int, list[LlamactlError]]:
    """The errors grouped by the status that they are answered with."""
    grouped: dict[int, list[LlamactlError]] = {}
    for error in errors:
        grouped.setdefault(error.status, []).append(error)
    return grouped
