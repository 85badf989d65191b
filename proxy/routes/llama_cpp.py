"""Which paths of a llama-server may be reached below ``/llama-cpp/{name}/``, and with what?

Default deny: a path is one of the endpoints listed here, an API call below ``v1/``, or has the
shape of a file of the web UI. It is judged as the client spelt it, and only spellings without
percent signs, dot segments and empty segments are let through; so it is the very path that the
backend sees, and nothing can be one thing here and another there.

Not here on purpose: ``tools`` and ``cors-proxy`` (they run programs and fetch addresses on the
node), ``models/unload`` and setting ``lora-adapters`` (they change what all others are served).
``/api/v1/instances/{name}/proxy`` reaches them, with a management key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Handling(NamedTuple):
    """What becomes of one method of an endpoint."""

    sent_as: str
    """The method that the backend gets."""
    may_start: bool
    """Whether it starts a stopped instance, and counts as use of it. What only looks does
    neither: a scraper would keep the instance loaded for ever, or load it again and again."""


Methods = Mapping[str, Handling]

_ASK: Methods = {"GET": Handling("GET", True), "HEAD": Handling("HEAD", True)}
_LOOK: Methods = {"GET": Handling("GET", False), "HEAD": Handling("HEAD", False)}
_DO: Methods = {"POST": Handling("POST", True)}

_ENDPOINTS: Mapping[str, Methods] = {
    **dict.fromkeys(
        [
            "apply-template",
            "audio/transcriptions",
            "chat/completions",
            "completion",
            "completions",
            "detokenize",
            "embedding",
            "embeddings",
            "infill",
            "models/load",
            "rerank",
            "reranking",
            "responses",
            "tokenize",
        ],
        _DO,
    ),
    **dict.fromkeys(["health", "models/sse", "v1/health"], _LOOK),
    **dict.fromkeys(["lora-adapters", "models", "slots", "v1/models"], _ASK),
    "props": {**_ASK, **_DO},
    # The seed has POST, which llama-server has not; there it starts the instance.
    "metrics": {**_LOOK, "POST": Handling("GET", True)},
    # A generation that goes on while the web UI is away: read it, end it.
    "v1/stream": {**_LOOK, "DELETE": Handling("DELETE", False)},
    "v1/streams/lookup": {"POST": Handling("POST", False)},
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
    """The page or a file of it: no key, and none for the backend."""
    ENDPOINT = "endpoint"
    NONE = "none"


class Found(NamedTuple):
    kind: EndpointKind
    path: str = ""
    """The path that the backend gets."""
    methods: Methods = {}


_NOTHING = Found(EndpointKind.NONE)


def find(rest: str) -> Found:
    """What ``rest`` is: the path below ``/llama-cpp/{name}/``, percent-encoded as it came."""
    if not rest:
        return Found(EndpointKind.WEB_UI, "/", _LOOK)
    path = rest.removesuffix("/")
    methods = _ENDPOINTS.get(path)
    if methods is None and (_OPENAI_CALL.fullmatch(path) or _SLOT.fullmatch(path)):
        methods = _DO
    if methods is not None:
        return Found(EndpointKind.ENDPOINT, f"/{path}", methods)
    if _UI_FILE.fullmatch(rest):
        return Found(EndpointKind.WEB_UI, f"/{rest}", _LOOK)
    return _NOTHING
