"""Rendering of errors: the document, headers and event that clients of a path expect.

A path belongs to one family, and a family has one document shape: OpenAI's, Anthropic's, or the
seed's ``{"error": code, "details": text}``.
"""

from __future__ import annotations

import math
import re
from enum import Enum, auto

import orjson

from llamactl.core.api_paths import is_ollama, is_resource, right_path
from llamactl.core.errors import LlamactlError, MethodNotAllowed, PackedBody

Document = dict[str, object]
Headers = list[tuple[bytes, bytes]]


class PathFamily(Enum):
    """Families of paths, each with one shape of errors."""

    MANAGEMENT = auto()
    """The management API, and every path of no other family: the seed's document."""
    BACKEND = auto()
    """A backend's own paths (``/llama-cpp/{name}/…``, the instance proxy): the seed's document."""
    OPENAI = auto()
    """``/v1/…``, here and below ``/llama-cpp/{name}``."""
    ANTHROPIC = auto()
    """``/v1/messages…``, likewise; and ``/v1/…`` for a request with ``anthropic-version``."""
    OLLAMA = auto()
    """Ollama's API, which llamactl does not serve: ``{"error": text}``."""


_LLAMA_CPP_V1 = re.compile(r"/llama-cpp/[^/]*(?=/v1/)")
_BACKEND_PATH = re.compile(r"/llama-cpp/|/api/v1/instances/[^/]+/proxy(?:/|\Z)")

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    415: "invalid_request_error",
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
    415: "invalid_request_error",
    503: "overloaded_error",
}


def family_of(path: str, *, is_anthropic: bool = False) -> PathFamily:
    """The family of a request's path; ``is_anthropic``: the request has ``anthropic-version``."""
    api_path = _LLAMA_CPP_V1.sub("", path, count=1) if path.startswith("/llama-cpp/") else path
    if _BACKEND_PATH.match(api_path):
        return PathFamily.BACKEND
    if is_ollama(api_path):
        return PathFamily.OLLAMA
    meant = right_path(api_path) or api_path
    if meant.startswith("/v1/messages"):
        return PathFamily.ANTHROPIC
    if meant.startswith("/v1") or is_resource(api_path):
        return PathFamily.ANTHROPIC if is_anthropic else PathFamily.OPENAI
    return PathFamily.MANAGEMENT


def render(
    path: str, error: LlamactlError, *, is_anthropic: bool = False
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the response that refuses a request to ``path``."""
    family = family_of(path, is_anthropic=is_anthropic)
    body = body_for(family, error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *headers_for(family, error),
    ]
    return error.status, headers, body


def body_for(family: PathFamily, error: LlamactlError) -> bytes:
    """The body of the response: the error's document as JSON."""
    body = orjson.dumps(document_for(family, error))
    # The Go program ends its documents with a newline.
    return body + b"\n" if family is PathFamily.MANAGEMENT else body


def document_for(family: PathFamily, error: LlamactlError) -> Document:
    """The error's JSON document in the shape of the family."""
    if family is PathFamily.OPENAI:
        return openai_document(error)
    if family is PathFamily.ANTHROPIC:
        return anthropic_document(error)
    if family is PathFamily.OLLAMA:
        return {"error": error.details}
    return seed_document(error)


def headers_for(family: PathFamily, error: LlamactlError) -> Headers:
    """The headers of the error, without the content headers."""
    headers: Headers = []
    if isinstance(error, MethodNotAllowed) and error.allowed:
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, PackedBody):
        headers.append((b"accept-encoding", b"identity"))
    if error.status == 401 and family is PathFamily.MANAGEMENT:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    elif error.status >= 500 and family is not PathFamily.MANAGEMENT:
        # The openai and anthropic clients retry every 5xx by default. Without a Retry-After such
        # a retry would only start a broken backend again and again.
        headers.append((b"x-should-retry", b"false"))
    return headers


def event_for(family: PathFamily, error: LlamactlError) -> bytes:
    """The error as the last event of an event stream.

    Begins with an empty line: the backend may have died in the middle of an event. Streams of the
    family BACKEND are OpenAI's.
    """
    if family is PathFamily.ANTHROPIC:
        name, document = b"event: error\n", anthropic_document(error)
    else:
        name, document = b"", openai_document(error)
    return b"\n\n" + name + b"data: " + orjson.dumps(document) + b"\n\n"


def openai_document(error: LlamactlError) -> Document:
    return {
        "error": {
            "message": error.details,
            "type": _OPENAI_TYPES.get(error.status, "server_error"),
            "param": error.param,
            "code": error.code,
            **error.extra,
        }
    }


def anthropic_document(error: LlamactlError) -> Document:
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": error.details, "code": error.code, **error.extra},
    }


def seed_document(error: LlamactlError) -> Document:
    """The seed's document; a 401 has a shape of its own there."""
    if error.status == 401:
        return {"error": {"message": error.details, "type": "authentication_error"}}
    return {"error": error.code, "details": error.details, **error.extra}
