"""Which paths the proxy answers; everything else is Django's."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote

from proxy.routes import llama_cpp

_INSTANCE_PROXY = re.compile(r"/api/v1/instances/([^/]+)/proxy(/.*)?", re.DOTALL)
_LLAMA_CPP = re.compile(r"/llama-cpp/([^/]+)(?:/(.*))?", re.DOTALL)


class RouteKind(Enum):
    """What kind of request a path is."""

    INFERENCE = "inference"
    """``/v1/…``: routed by the body's model."""
    MODELS = "models"
    """``/v1/models``, and one of them by its id, which is ``rest`` (as text)."""
    INSTANCE = "instance"
    """``/api/v1/instances/{name}/proxy/…``: any method, with a management key."""
    LLAMA_CPP = "llama-cpp"
    """``/llama-cpp/{name}/…``: an endpoint of llama-server, with an inference key."""
    WEB_UI = "web-ui"
    """``/llama-cpp/{name}/`` and the files of that page: no key, starts nothing."""
    TO_WEB_UI = "to-web-ui"
    """``/llama-cpp/{name}``: without the slash the page's own links would lead astray."""
    NOWHERE = "nowhere"
    """Another path below ``/llama-cpp/{name}/``, or one below ``/v1/`` that may lead out of it: 401
    without a key, else 404."""


class Route(NamedTuple):
    """A named tuple, because one is made for every request: a frozen dataclass takes thrice as
    long."""

    side: RouteKind
    instance: str = ""
    rest: str = ""
    """The path that the backend gets, as the client spelt it (percent-encoded)."""
    endpoint: llama_cpp.Methods | None = None
    """The methods of the endpoint below ``/llama-cpp``."""

    @property
    def methods(self) -> tuple[str, ...] | None:
        """The methods that are possible here; ``None``: any."""
        if self.side is RouteKind.INFERENCE:
            return _POST
        if self.endpoint is not None:
            return tuple(self.endpoint)
        return _METHODS[self.side]


_POST = ("POST",)
_METHODS: dict[RouteKind, tuple[str, ...] | None] = {
    RouteKind.MODELS: ("GET", "HEAD"),
    RouteKind.INSTANCE: None,
    RouteKind.TO_WEB_UI: ("GET", "HEAD"),
    RouteKind.NOWHERE: (),
}
_MODELS = Route(RouteKind.MODELS)
_NOWHERE = Route(RouteKind.NOWHERE)
_SIDES = {
    llama_cpp.EndpointKind.WEB_UI: RouteKind.WEB_UI,
    llama_cpp.EndpointKind.ENDPOINT: RouteKind.LLAMA_CPP,
    llama_cpp.EndpointKind.NONE: RouteKind.NOWHERE,
}


def route(raw_path: str) -> Route | None:
    """The proxy's route for a percent-encoded path, or ``None``: not ours."""
    if raw_path.startswith("/v1/"):
        if raw_path in ("/v1/models", "/v1/models/"):
            return _MODELS
        if raw_path.startswith("/v1/models/"):
            return Route(RouteKind.MODELS, "", unquote(raw_path[len("/v1/models/") :].rstrip("/")))
        # No API call has any of these, and what a backend makes of them might be below / instead.
        if "%" in raw_path or "/." in raw_path or "\\" in raw_path:
            return _NOWHERE
        return Route(RouteKind.INFERENCE, "", raw_path)
    if raw_path == "/v1":
        return Route(RouteKind.INFERENCE, "", raw_path)
    if raw_path.startswith("/api/v1/instances/"):
        match = _INSTANCE_PROXY.fullmatch(raw_path)
        if match is not None:
            return Route(RouteKind.INSTANCE, unquote(match[1]), match[2] or "/")
    elif raw_path.startswith("/llama-cpp/"):
        match = _LLAMA_CPP.fullmatch(raw_path)
        if match is not None:
            return _llama_cpp_route(unquote(match[1]), match[2])
    return None


def _llama_cpp_route(name: str, rest: str | None) -> Route:
    if rest is None:
        return Route(RouteKind.TO_WEB_UI, name)
    kind, path, methods = llama_cpp.find(rest)
    side = _SIDES[kind]
    return Route(side, name, path, None if side is RouteKind.NOWHERE else methods)


_LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})


def may_start(route: Route, method: str) -> bool:
    """Whether the request starts a stopped instance (that allows it)."""
    if route.side is RouteKind.INFERENCE:
        return True
    handling = route.endpoint.get(method) if route.endpoint is not None else None
    return handling is not None and handling.may_start


def counts_as_use(route: Route, method: str) -> bool:
    """Whether the request keeps its instance from being idle.

    A page that polls, a scraper and the files of the web UI only look: with an open dashboard an
    idle instance would otherwise never stop.
    """
    if route.side is RouteKind.INSTANCE:
        return method not in _LOOKS
    return may_start(route, method)
