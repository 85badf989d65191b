"""Which paths the proxy answers; everything else is Django's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_INSTANCE_PROXY = re.compile(r"/api/v1/instances/([^/]+)/proxy(/.*)?", re.DOTALL)


class Side(Enum):
    """What kind of request a path is."""

    INFERENCE = "inference"
    """``/v1/…``: routed by the body's model."""
    MODELS = "models"
    """``/v1/models``."""
    INSTANCE = "instance"
    """``/api/v1/instances/{name}/proxy/…``: any method, with a management key."""


@dataclass(frozen=True, slots=True)
class Route:
    side: Side
    instance: str = ""
    rest: str = ""
    """The path that the backend gets, as the client spelt it (percent-encoded)."""


_MODELS = Route(Side.MODELS)


def route(raw_path: str) -> Route | None:
    """The proxy's route for a percent-encoded path, or ``None``: not ours."""
    if raw_path.startswith("/v1/"):
        if raw_path in ("/v1/models", "/v1/models/"):
            return _MODELS
        return Route(Side.INFERENCE, rest=raw_path)
    if raw_path == "/v1":
        return Route(Side.INFERENCE, rest=raw_path)
    if raw_path.startswith("/api/v1/instances/"):
        match = _INSTANCE_PROXY.fullmatch(raw_path)
        if match is not None:
            return Route(Side.INSTANCE, instance=match[1], rest=match[2] or "/")
    return None
