"""The paths below ``/llama-cpp/{name}/`` that an inference key may reach, and their methods.

Default deny: a path is an endpoint of the list here, an API call below ``v1/``, or has the shape of
a file of the web UI. The path is matched as the client spelt it, and only spellings without percent
signs, dot segments and empty segments match. So the backend sees the very path that was matched,
and cannot resolve it to another.

Left out on purpose: ``tools`` and ``cors-proxy`` (they run programs and fetch addresses on the
node), ``models/unload`` and setting ``lora-adapters`` (they change the service for all others).
``/api/v1/instances/{name}/proxy`` reaches them, with a management key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from llamactl.core.api_paths import is_misdirected


class MethodRule(NamedTuple):
    """The handling of one method of an endpoint."""

    sent_as: str
    """The method of the request to the backend."""
    may_start: bool
    """Whether the request starts a stopped instance, and counts as use. A request that only
    observes does neither: a scraper would keep the instance loaded for ever, or load it again and
    again."""


MethodRules = Mapping[str, MethodRule]

_OBSERVE: MethodRules = {"GET": MethodRule("GET", False), "HEAD": MethodRule("HEAD", False)}
_CALL: MethodRules = {"POST": MethodRule("POST", True)}

LIST_MODELS = _OBSERVE
"""Methods of the management API's list of a router's models."""
CHANGE_MODELS: MethodRules = {"POST": MethodRule("POST", False)}
"""Methods of loading and unloading a router's model; a stopped instance is not started."""

_CALLS = (
    "apply-template",
    "audio/transcriptions",
    "chat/completions",
    "completion",
    "completions",
    "detokenize",
    "embedding",
    "embeddings",
    "infill",
    "rerank",
    "reranking",
    "responses",
    "tokenize",
)
"""Endpoints that compute with the model."""
_ENDPOINTS: Mapping[str, MethodRules] = {
    **dict.fromkeys(_CALLS, _CALL),
    "models/load": _CALL,
    **dict.fromkeys(
        ["health", "lora-adapters", "models", "models/sse", "slots", "v1/health", "v1/models"],
        _OBSERVE,
    ),
    "props": {**_OBSERVE, **_CALL},
    # POST is the seed's, and starts the instance there; llama-server has GET alone.
    "metrics": {**_OBSERVE, "POST": MethodRule("GET", True)},
    # A generation that goes on after the web UI was closed: reading and ending it.
    "v1/stream": {**_OBSERVE, "DELETE": MethodRule("DELETE", False)},
    "v1/streams/lookup": {"POST": MethodRule("POST", False)},
}
_SLOT = re.compile(r"slots/[0-9]{1,4}")
# One segment: no percent sign, and neither "." nor "..".
_SEGMENT = r"[A-Za-z0-9_@:~-][A-Za-z0-9_.@:~-]{0,99}"
_OPENAI_CALL = re.compile(rf"v1(?:/{_SEGMENT}){{1,5}}")
_UI_FILE = re.compile(
    r"(?:[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,99}/){0,4}[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,99}"
    r"\.(?:html|m?js|css|map|json|webmanifest|wasm|txt|ico|svg|png|jpe?g|gif|webp|woff2?|ttf)"
)


class EndpointKind(Enum):
    WEB_UI = "web UI"
    """The page or a file of it: needs no key, and the backend is asked without its key."""
    ENDPOINT = "endpoint"
    NONE = "none"


class Match(NamedTuple):
    """The kind of a path, and how to ask the backend for it."""

    kind: EndpointKind
    path: str = ""
    """The path of the request to the backend."""
    methods: MethodRules = {}


_NO_MATCH = Match(EndpointKind.NONE)


def _is_openai_call(path: str) -> bool:
    return _OPENAI_CALL.fullmatch(path) is not None and not is_misdirected(f"/{path}")


_CALL_PATHS = frozenset(f"/{path}" for path in _CALLS)


def is_call(path: str) -> bool:
    """Whether requests to the path compute with the model: the instance's defaults are for them."""
    return path in _CALL_PATHS or (path.startswith("/v1/") and not path.startswith("/v1/stream"))


def find(rest: str) -> Match:
    """The match of the path below ``/llama-cpp/{name}/``, percent-encoded as it came."""
    if not rest:
        return Match(EndpointKind.WEB_UI, "/", _OBSERVE)
    path = rest.removesuffix("/")
    methods = _ENDPOINTS.get(path)
    if methods is None and (_is_openai_call(path) or _SLOT.fullmatch(path)):
        methods = _CALL
    if methods is not None:
        return Match(EndpointKind.ENDPOINT, f"/{path}", methods)
    if _UI_FILE.fullmatch(rest):
        return Match(EndpointKind.WEB_UI, f"/{rest}", _OBSERVE)
    return _NO_MATCH
