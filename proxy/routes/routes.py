"""Routes: the paths that the proxy answers; all other paths are Django's."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote

from llamactl.core.api_paths import OPERATIONS, ROOT, ROUTER_PATHS, is_misdirected
from proxy.routes import llama_cpp

_INSTANCE_PROXY = re.compile(r"/api/v1/instances/([^/]+)/proxy(/.*)?", re.DOTALL)
_ROUTER_MODELS = re.compile(
    r"/api/v1/llama-cpp/([^/]+)/models(?:/(.+)/(load|unload))?/?", re.DOTALL
)
_LLAMA_CPP = re.compile(r"/llama-cpp/([^/]+)(?:/(.*))?", re.DOTALL)


class RouteKind(Enum):
    """The kind of a request, by its path."""

    INFERENCE = "inference"
    """``/v1/…``, and llama.cpp's own calls at the root: routed by the body's ``model``."""
    MODELS = "models"
    """``/v1/models`` and ``/models``, or one model, whose id is ``rest`` (as text)."""
    INSTANCE = "instance"
    """``/api/v1/instances/{name}/proxy/…``: any method, with a management key."""
    ROUTER_MODELS = "router-models"
    """``/api/v1/llama-cpp/{name}/models…``: the models of a router, with a management key."""
    LLAMA_CPP = "llama-cpp"
    """``/llama-cpp/{name}/…``: an endpoint of llama-server, with an inference key."""
    WEB_UI = "web-ui"
    """``/llama-cpp/{name}/`` and the files of that page: no key, starts nothing."""
    WEB_UI_REDIRECT = "web-ui-redirect"
    """``/llama-cpp/{name}``: without the slash the page's relative links would be wrong."""
    HEALTH = "health"
    """``/health``, ``/v1/health``: no key, and no instance is asked."""
    ROUTER_API = "router-api"
    """``/props`` and ``/models/load``, ``/models/unload`` at the root, as llama.cpp's router has
    them: the model is in the query or the body."""
    UNKNOWN = "unknown"
    """Any other path below ``/llama-cpp/{name}/``, or a path below ``/v1/`` that may lead out of
    it, is misspelt, or belongs to an API without models: 401 without a key, else 404."""


class Route(NamedTuple):
    """The kind of a request, and the parts of its path.

    A named tuple, because each request makes one: a frozen dataclass takes three times as long.
    """

    kind: RouteKind
    instance: str = ""
    rest: str = ""
    """The path that the backend gets, as the client spelt it (percent-encoded)."""
    endpoint: llama_cpp.MethodRules | None = None
    """The rules of the methods, for an endpoint of llama-server."""
    model: str = ""
    """The model to load or unload, which the path names and llama-server reads in the body."""
    is_management: bool = False
    """Whether the request needs a management key."""

    @property
    def methods(self) -> tuple[str, ...] | None:
        """The allowed methods; ``None``: any."""
        if self.kind is RouteKind.INFERENCE:
            return _POST
        if self.endpoint is not None:
            return tuple(self.endpoint)
        return _METHODS[self.kind]


_POST = ("POST",)
_METHODS: dict[RouteKind, tuple[str, ...] | None] = {
    RouteKind.MODELS: ("GET", "HEAD"),
    RouteKind.HEALTH: ("GET", "HEAD"),
    RouteKind.INSTANCE: None,
    RouteKind.WEB_UI_REDIRECT: ("GET", "HEAD"),
    RouteKind.UNKNOWN: (),
}
_MODELS = Route(RouteKind.MODELS)
_UNKNOWN = Route(RouteKind.UNKNOWN)
_LOOKUP = "v1/streams/lookup"
_HEALTH = Route(RouteKind.HEALTH)
_OF_ROUTER = {
    "/health": _HEALTH,
    "/v1/health": _HEALTH,
    "/models": _MODELS,
    "/props": Route(RouteKind.ROUTER_API, "", "/props", llama_cpp.LIST_MODELS),
} | {
    path: Route(RouteKind.ROUTER_API, "", path, llama_cpp.CHANGE_MODELS)
    for path in ("/models/load", "/models/unload")
}
_AT_ROOT = {
    # The same endpoints in llama-server, and the only paths of them that other backends have.
    "/chat/completions": "/v1/chat/completions",
    "/rerank": "/v1/rerank",
    "/reranking": "/v1/rerank",
}
"""Path at the root → the path that the backend gets, where they differ."""
_OPERATIONS = {
    path: Route(RouteKind.INFERENCE, "", path)
    for path in (f"{ROOT}/{operation}" for operation in OPERATIONS - {"models"})
} | {
    # A page polls it: it starts nothing.
    f"/{_LOOKUP}": Route(RouteKind.INFERENCE, "", f"/{_LOOKUP}", llama_cpp.find(_LOOKUP).methods)
}
_OPERATIONS |= _OF_ROUTER | {
    path: Route(RouteKind.INFERENCE, "", _AT_ROOT.get(path, path))
    for path in ROUTER_PATHS - _OF_ROUTER.keys()
}
"""The paths of nearly all requests, with their routes."""
_KINDS = {
    llama_cpp.EndpointKind.WEB_UI: RouteKind.WEB_UI,
    llama_cpp.EndpointKind.ENDPOINT: RouteKind.LLAMA_CPP,
    llama_cpp.EndpointKind.NONE: RouteKind.UNKNOWN,
}


def route(raw_path: str) -> Route | None:
    """The route of a percent-encoded path; ``None`` for a path of Django's."""
    found = _OPERATIONS.get(raw_path)
    if found is not None:
        return found
    if raw_path.startswith("/v1/"):
        if raw_path in ("/v1/models", "/v1/models/"):
            return _MODELS
        if raw_path.startswith("/v1/models/"):
            return Route(RouteKind.MODELS, "", unquote(raw_path[len("/v1/models/") :].rstrip("/")))
        # No API call has any of these, and a backend might resolve them to a path outside of /v1.
        if "%" in raw_path or "/." in raw_path or "\\" in raw_path or is_misdirected(raw_path):
            return _UNKNOWN
        return Route(RouteKind.INFERENCE, "", raw_path)
    if raw_path == "/v1":
        return _UNKNOWN
    if raw_path.startswith("/api/v1/instances/"):
        match = _INSTANCE_PROXY.fullmatch(raw_path)
        if match is not None:
            name, rest = unquote(match[1]), match[2] or "/"
            return Route(RouteKind.INSTANCE, name, rest, is_management=True)
    elif raw_path.startswith("/api/v1/llama-cpp/"):
        match = _ROUTER_MODELS.fullmatch(raw_path)
        if match is not None:
            return _router_route(unquote(match[1]), match[2], match[3])
    elif raw_path.startswith("/llama-cpp/"):
        match = _LLAMA_CPP.fullmatch(raw_path)
        if match is not None:
            return _llama_cpp_route(unquote(match[1]), match[2])
    return None


def _router_route(name: str, model: str | None, action: str | None) -> Route:
    if model is None or action is None:
        path, endpoint, model = "/models", llama_cpp.LIST_MODELS, ""
    else:
        path, endpoint, model = f"/models/{action}", llama_cpp.CHANGE_MODELS, unquote(model)
    return Route(RouteKind.ROUTER_MODELS, name, path, endpoint, model, is_management=True)


def _llama_cpp_route(name: str, rest: str | None) -> Route:
    if rest is None:
        return Route(RouteKind.WEB_UI_REDIRECT, name)
    match = llama_cpp.find(rest)
    kind = _KINDS[match.kind]
    return Route(kind, name, match.path, None if kind is RouteKind.UNKNOWN else match.methods)


_OBSERVING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def may_start(route: Route, method: str) -> bool:
    """Whether the request may start a stopped instance (with on-demand start)."""
    if route.endpoint is None:
        return route.kind is RouteKind.INFERENCE
    rule = route.endpoint.get(method)
    return rule is not None and rule.may_start


def counts_as_use(route: Route, method: str) -> bool:
    """Whether the request keeps its instance from being idle.

    A polling page, a scraper and the files of the web UI only observe: with an open dashboard an
    idle instance would otherwise never stop.
    """
    if route.is_management:
        return method not in _OBSERVING_METHODS
    return may_start(route, method)
