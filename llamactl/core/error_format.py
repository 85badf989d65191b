"""Rendering of errors: the document, headers and event that clients of a path expect.

A path belongs to one family, and a family has one document shape: OpenAI's, Anthropic's, or the
seed's ``{"error": code, "details": text}``.
"""

from __future__ import annotations

import math
import re
from enum import Enum, auto

import orjson

from llamactl.core.api_paths import ROUTER_PATHS, is_ollama, is_resource, right_path
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
    """``/v1/…``, here and below ``/llama-cpp/{name}``; llama.cpp's own paths at the root."""
    ANTHROPIC = auto()
    """``/v1/messages…``, likewise; and ``/v1/…`` for a request with ``anthropic-version``."""
    OLLAMA = auto()
    """Ollama's API, which llamactl does not serve: ``{"error": text}``."""


LONGEST_RETRY_AFTER_SECONDS = 59
"""The largest ``Retry-After``. openai-python gives up at once above 120 s, and the AI SDK waits its
own few seconds at 60 s or more."""

_RETRIED_STATUSES = frozenset({401, 403, 409})
"""Statuses below 500 that clients retry in vain: the openai and anthropic packages 409, and Claude
Code 401 and 403 too, for more than 170 s. A retry after 408 may succeed."""

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
    if meant.startswith("/v1") or api_path in ROUTER_PATHS or is_resource(api_path):
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
        headers.append((b"accept-encoding", error.accepted.encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % _whole_seconds(error.retry_after)))
    elif _is_retried(error.status, family):
        headers.append((b"x-should-retry", b"false"))
    return headers


def _whole_seconds(retry_after: float) -> int:
    """``Retry-After`` for this time: at least 1, because 0 is a retry without a pause."""
    return max(1, math.ceil(min(retry_after, LONGEST_RETRY_AFTER_SECONDS)))


def _is_retried(status: int, family: PathFamily) -> bool:
    """Whether clients of the family retry the status by default.

    Without a Retry-After a retry has the same outcome, or starts a broken backend once more. The
    clients of the management API are scripts, which know no x-should-retry; a wrong key may be that
    of any client.
    """
    if family is PathFamily.MANAGEMENT:
        return status in (401, 403)
    return status >= 500 or status in _RETRIED_STATUSES


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
    # Clients of Anthropic's API retry an overloaded_error for minutes, so only with a Retry-After.
    is_overload = error.status == 503 and error.retry_after is not None
    default = "overloaded_error" if is_overload else "api_error"
    kind = _ANTHROPIC_TYPES.get(error.status, default)
    return {
        "type": "error",
        "error": {"type": kind, "message": error.details, "code": error.code, **error.extra},
    }


def seed_document(error: LlamactlError) -> Document:
    """The seed's document; a 401 has a shape of its own there."""
    if error.status == 401:
        return {"error": {"message": error.details, "type": "authentication_error"}}
    return {"error": error.code, "details": error.details, **error.extra}
