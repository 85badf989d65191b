"""Rendering of errors in the shape that a path's clients expect."""

from __future__ import annotations

import math
import re

import orjson

from llamactl.core.errors import LlamactlError
from proxy.errors import MethodNotPossible, ModelNotFound

Headers = list[tuple[bytes, bytes]]


_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    503: "service_unavailable_error",
}


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    414: "invalid_request_error",
    503: "overloaded_error",
}


def openai_document(error: LlamactlError) -> dict[str, object]:
    return {
        "error": {
            "message": error.details,
            "type": _OPENAI_TYPES.get(error.status, "server_error"),
            "param": "model" if isinstance(error, ModelNotFound) else None,
            "code": error.code,
            **error.extra,
        }
    }


def anthropic_document(error: LlamactlError) -> dict[str, object]:
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": error.details, "code": error.code, **error.extra},
    }


def seed_document(error: LlamactlError) -> dict[str, object]:
    if error.status == 401:
        return {"error": {"message": error.details, "type": "authentication_error"}}
    return error.to_document()


_LLAMA_CPP = re.compile(r"/llama-cpp/[^/]*(?=/v1/)")


def document_for(path: str, error: LlamactlError) -> dict[str, object]:
    """The error's JSON in the shape that clients of ``path`` expect."""
    # Below /llama-cpp/{name} stands the same API, for the same clients.
    path = _LLAMA_CPP.sub("", path, count=1) if path.startswith("/llama-cpp/") else path
    if path.startswith("/v1/messages"):
        return anthropic_document(error)
    if path.startswith("/v1"):
        return openai_document(error)
    return seed_document(error)


def event(path: str, error: LlamactlError) -> bytes:
    """The error as the last event of a stream, in the shape that clients of ``path`` expect.

    Begins with an empty line: the backend may have died in the middle of an event.
    """
    # What /api/v1/instances/{name}/proxy leads to is a stream of OpenAI's too.
    is_anthropic = path.startswith("/v1/messages")
    document = anthropic_document(error) if is_anthropic else openai_document(error)
    name = b"event: error\n" if is_anthropic else b""
    return b"\n\n" + name + b"data: " + orjson.dumps(document) + b"\n\n"


def render(path: str, error: LlamactlError) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer to an error."""
    body = orjson.dumps(document_for(path, error))
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if isinstance(error, MethodNotPossible):
        headers.append((b"allow", ", ".join(error.possible).encode()))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    elif error.status >= 500:
        # The openai and anthropic clients retry every 5xx on their own; without an hour named at
        # which it may succeed, that would only start a broken backend again and again.
        headers.append((b"x-should-retry", b"false"))
    return error.status, headers, body
