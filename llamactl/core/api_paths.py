"""Paths of the APIs of OpenAI, Anthropic and Ollama, right and misspelt.

A wrong base URL is the most common mistake of a client's configuration: without ``/v1``, with
``/v1`` twice, with a slash too many, or with the prefix of another server (``/openai/v1``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

ROOT = "/v1"

OPERATIONS = frozenset(
    {
        *("chat/completions", "completions", "responses", "embeddings", "models", "decisions"),
        *("messages", "messages/count_tokens"),
        *("rerank", "reranking", "score"),
        *("audio/speech", "audio/transcriptions", "audio/translations"),
        *("images/edits", "images/generations", "images/variations"),
    }
)
"""Paths below ``/v1`` with a model in each request."""

RESOURCES = frozenset(
    {
        *("files", "uploads", "batches", "evals", "fine_tuning", "fine-tunes", "moderations"),
        *("assistants", "threads", "vector_stores", "conversations", "containers", "skills"),
        *("videos", "realtime", "live", "chatkit", "organization", "organizations", "projects"),
        *("agents", "sessions", "environments", "memory_stores", "vaults", "dreams", "tunnels"),
        *("deployments", "deployment_runs", "user_profiles", "engines", "safety"),
        *("webhook_endpoints", "webhook_event_types", "content_provenance_checks"),
    }
)
"""First parts of paths below ``/v1`` that no backend has: the requests have no model of ours."""

ROUTER_PATHS = frozenset(
    {
        *("/health", "/models", "/models/load", "/models/unload", "/props"),
        *("/chat/completions", "/completion", "/embedding", "/infill", "/rerank", "/reranking"),
        *("/apply-template", "/detokenize", "/tokenize"),
    }
)
"""Paths of llama.cpp's router and of llama-swap at the root, which llamactl has too."""

_OLLAMA = frozenset(
    {
        *("chat", "generate", "embed", "embeddings", "tags", "show", "ps", "version"),
        *("pull", "push", "create", "copy", "delete", "blobs", "me", "signout"),
        *("web_search", "web_fetch", "experimental"),
    }
)
"""Parts of Ollama's paths, after ``api``."""
_OLLAMA_DIRECTORIES = frozenset({"blobs", "experimental"})

_OWN = re.compile(
    r"/(?:admin|docs|static|swagger|healthz|api/schema|llama-cpp|api/v1/"
    r"(?:instances|llama-cpp|backends|auth|nodes|requests|config|version))(?:/|\Z)"
)
"""Paths of llamactl's own, never a misspelt API call."""
_GLUED = re.compile(r"(v1)(audio|chat|completions|embeddings|messages|models|rerank|responses)")
"""A base URL and a path without the slash between them."""
_PREFIXES = frozenset({"v1", "v1beta", "api", "openai", "anthropic"})
_BASE_WORDS = _PREFIXES | {"chat", "completions", "messages", "responses", "models"}
"""Parts of wrong base URLs. Below ``/v1`` no other part is passed over: a backend may have it."""
_SAFE_PART = re.compile(r"[A-Za-z0-9_.@:~-]+")
_MAX_PARTS = 12
_MAX_LENGTH = 1000
_KNOWN = frozenset(f"{ROOT}/{operation}" for operation in OPERATIONS)


def right_path(path: str) -> str | None:
    """The path that a client means by a misspelt one: ``/v1/v1/models`` → ``/v1/models``."""
    if path in _KNOWN or _OWN.match(path):
        return None
    parts = _parts(path)
    meant = _operation(parts) or _model(parts)
    if meant is None and parts[:1] == ["v1"] and all(map(_SAFE_PART.fullmatch, parts)):
        meant = "/".join(_without(parts, frozenset({"v1"})))
    right = f"{ROOT}/{meant}" if meant else None
    return right if right != path else None


def is_operation(path: str) -> bool:
    """Whether the path is below ``/v1``, with a model in each request."""
    return path in _KNOWN


def is_resource(path: str) -> bool:
    """Whether the path belongs to an API of OpenAI or Anthropic that llamactl does not have."""
    found = _parts(path)
    if _OWN.match(path) or _operation(found):
        return False
    parts = [part.lower() for part in _without(found, _PREFIXES)]
    if parts[:1] == ["responses"]:
        return parts[2:] in (["cancel"], ["input_items"])
    return bool(RESOURCES.intersection(parts[:1])) or parts[:2] == ["messages", "batches"]


def is_ollama(path: str) -> bool:
    """Whether the path is one of Ollama's API, at any base URL."""
    if _OWN.match(path):
        return False
    parts = [part.lower() for part in _parts(path)]
    for at, part in enumerate(parts[:-1]):
        if part == "api" and parts[at + 1] in _OLLAMA:
            return at + 2 == len(parts) or parts[at + 1] in _OLLAMA_DIRECTORIES
    return False


@lru_cache(maxsize=256)
def is_misdirected(path: str) -> bool:
    """Whether a path below ``/v1`` is misspelt, or one of an API that llamactl does not have.

    Kept for a while: a client of a backend's own path sends it with each request.
    """
    return right_path(path) is not None or is_resource(path) or is_ollama(path) or path == "/v1/"


def _parts(path: str) -> list[str]:
    """The parts between the slashes, unquoted; none of a path that dot segments may lead away."""
    if len(path) > _MAX_LENGTH:
        return []
    parts = [part for each in unquote(path).split("/") if (part := each.strip())]
    if len(parts) > _MAX_PARTS or {".", ".."} & set(parts):
        return []
    if parts and (glued := _GLUED.fullmatch(parts[0])):
        parts[:1] = glued.groups()
    return parts


def _operation(parts: list[str]) -> str | None:
    """The longest operation at the end of the path, behind nothing but a base URL."""
    lower = [part.lower() for part in parts]
    for start in range(len(parts)):
        if lower[0] == "v1" and not _BASE_WORDS.issuperset(lower[:start]):
            return None
        if (tail := "/".join(lower[start:])) in OPERATIONS:
            return tail
    return None


def _model(parts: list[str]) -> str | None:
    """``models/{id}`` at the end of the path, behind nothing but a base URL."""
    base = len(parts) - len(_without(parts, _PREFIXES))
    is_model = base + 1 < len(parts) and parts[base].lower() == "models"
    return "/".join(["models", *parts[base + 1 :]]) if is_model else None


def _without(parts: list[str], prefixes: frozenset[str]) -> list[str]:
    start = 0
    while start < len(parts) and parts[start].lower() in prefixes:
        start += 1
    return parts[start:]
