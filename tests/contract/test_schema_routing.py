"""The OpenAPI document and the proxy's routing speak of the same operations, both ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llamactl.core.api_paths import ROUTER_PATHS
from llamactl.openapi.views import document
from proxy.openapi import paths as proxied_paths
from proxy.routes import llama_cpp
from proxy.routes.routes import RouteKind, may_start, route

PATHS = document()["paths"]
PROXIED = [path for path in PATHS if path in proxied_paths()]
BELOW = "/llama-cpp/{name}/"
NEEDS_NO_KEY = {RouteKind.WEB_UI, RouteKind.HEALTH}


def filled(path: str) -> str:
    """A path of the document as a client would send it."""
    return path.format(name="gemma", path="embeddings", model="gemma/a:b", slot=0)


def documented() -> Iterator[tuple[str, str]]:
    """Method and path."""
    for path in PROXIED:
        for method in PATHS[path]:
            yield method.upper(), path


@pytest.mark.parametrize(("method", "path"), list(documented()))
def test_what_is_documented_is_routed_there(method: str, path: str) -> None:
    found = route(filled(path))
    assert found is not None
    sides = {
        "/v1/models": {RouteKind.MODELS},
        "/v1/health": {RouteKind.HEALTH},
        "/v1/": {RouteKind.INFERENCE},
        BELOW: {RouteKind.WEB_UI if path == BELOW else RouteKind.LLAMA_CPP},
        "/api/v1/instances/": {RouteKind.INSTANCE},
        "/api/v1/llama-cpp/": {RouteKind.ROUTER_MODELS},
        "/models/": {RouteKind.ROUTER_API},
        "/models": {RouteKind.MODELS},
        "/props": {RouteKind.ROUTER_API},
        "/health": {RouteKind.HEALTH},
        "/": {RouteKind.INFERENCE},
    }
    assert found.kind in next(side for start, side in sides.items() if path.startswith(start))
    assert found.methods is None or method in found.methods
    is_open = not PATHS[path][method.lower()]["security"]
    assert is_open == (found.kind in NEEDS_NO_KEY)


def routed() -> Iterator[tuple[str, str]]:
    """Method and path of each endpoint; HEAD, which goes with each GET, is left out."""
    yield from ((method, "") for method in llama_cpp.find("").methods)
    yield from ((method, "slots/{slot}") for method in llama_cpp.find("slots/0").methods)
    yield from ((method, "v1/{path}") for method in llama_cpp.find("v1/embeddings").methods)
    for path, methods in llama_cpp._ENDPOINTS.items():
        yield from ((method, path) for method in methods)


def test_what_is_routed_below_llama_cpp_is_documented_and_no_more() -> None:
    ours = {
        (method, path.removeprefix(BELOW))
        for method, path in documented()
        if path.startswith(BELOW)
    }
    assert ours == {(method, path) for method, path in routed() if method != "HEAD"}


def test_every_path_of_the_router_is_documented() -> None:
    assert set(PROXIED) >= ROUTER_PATHS


@pytest.mark.parametrize(("method", "path"), [it for it in documented() if BELOW in it[1]])
def test_what_starts_nothing_says_so(method: str, path: str) -> None:
    found = route(filled(path))
    assert found is not None
    description = PATHS[path][method.lower()]["description"].lower()
    says_so = "starts no instance" in description
    assert says_so is not may_start(found, method)


@pytest.mark.parametrize("path", ["tools", "cors-proxy", "models/unload", "../v1", "v1/../tools"])
def test_what_is_kept_shut_is_not_documented(path: str) -> None:
    assert llama_cpp.find(path).kind is llama_cpp.EndpointKind.NONE
    assert BELOW + path not in PATHS
