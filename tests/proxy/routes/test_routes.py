from __future__ import annotations

import pytest

from proxy.routes.routes import Route, RouteKind, counts_as_use, may_start, route


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/models", Route(RouteKind.MODELS)),
        ("/v1/models/", Route(RouteKind.MODELS)),
        ("/v1/models/demo", Route(RouteKind.MODELS, rest="demo")),
        ("/v1/models/demo/", Route(RouteKind.MODELS, rest="demo")),
        # It should read a name with a slash either way; the clients encode it.
        ("/v1/models/demo/org/m.gguf", Route(RouteKind.MODELS, rest="demo/org/m.gguf")),
        ("/v1/models/demo%2Forg%2Fm.gguf", Route(RouteKind.MODELS, rest="demo/org/m.gguf")),
        ("/v1/chat/completions", Route(RouteKind.INFERENCE, rest="/v1/chat/completions")),
        ("/api/v1/instances/a/proxy", Route(RouteKind.INSTANCE, "a", "/", is_management=True)),
        (
            "/api/v1/instances/a.b/proxy/x%2Fy/z",
            Route(RouteKind.INSTANCE, "a.b", "/x%2Fy/z", is_management=True),
        ),
        ("/api/v1/instances/a", None),
        ("/api/v1/instances/a/proxyx", None),
        ("/api/v1/instances/a/b/proxy", None),
        (
            "/api/v1/instances/a%2Db/proxy/x",
            Route(RouteKind.INSTANCE, "a-b", "/x", is_management=True),
        ),
        ("/llama-cpp/a", Route(RouteKind.WEB_UI_REDIRECT, "a")),
        ("/llama-cpp/a/tools", Route(RouteKind.UNKNOWN, "a")),
        ("/llama-cpp", None),
        ("/llama-cpp/", None),
        ("/llama-cppx/a/", None),
        ("/v1x", None),
        ("/admin/", None),
        ("/", None),
    ],
)
def test_paths_of_the_proxy_are_told_from_djangos(path: str, found: Route | None) -> None:
    assert route(path) == found


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/../tools", "/v1/..", "/v1/chat/../../tools", "/v1/./x", "/v1//../../tools"),
        *("/v1/%2e%2e/tools", "/v1/..%2ftools", "/v1/%252e%252e/tools", "/v1/%5c..%5ctools"),
        *("/v1/..\\tools", "/v1/..;/tools"),
    ],
)
def test_no_spelling_of_a_path_leads_a_backend_out_of_v1(path: str) -> None:
    assert route(path) == Route(RouteKind.UNKNOWN)


@pytest.mark.parametrize(
    ("path", "side", "rest"),
    [
        ("/llama-cpp/a/", RouteKind.WEB_UI, "/"),
        ("/llama-cpp/a%2Eb/_app/x.js", RouteKind.WEB_UI, "/_app/x.js"),
        ("/llama-cpp/a/props", RouteKind.LLAMA_CPP, "/props"),
        ("/llama-cpp/a/v1/chat/completions", RouteKind.LLAMA_CPP, "/v1/chat/completions"),
    ],
)
def test_paths_below_llama_cpp_are_pages_or_endpoints(
    path: str, side: RouteKind, rest: str
) -> None:
    found = route(path)
    assert found is not None
    assert (found.kind, found.rest) == (side, rest)


@pytest.mark.parametrize(
    ("method", "path", "starts", "counts"),
    [
        ("POST", "/v1/chat/completions", True, True),
        ("GET", "/v1/models", False, False),
        ("POST", "/api/v1/instances/a/proxy/completion", False, True),
        ("DELETE", "/api/v1/instances/a/proxy/x", False, True),
        ("GET", "/api/v1/instances/a/proxy/health", False, False),
        ("HEAD", "/api/v1/instances/a/proxy/health", False, False),
        ("OPTIONS", "/api/v1/instances/a/proxy/health", False, False),
        ("GET", "/llama-cpp/a/", False, False),
        ("GET", "/llama-cpp/a/favicon.ico", False, False),
        ("GET", "/llama-cpp/a/health", False, False),
        ("GET", "/llama-cpp/a/metrics", False, False),
        ("POST", "/llama-cpp/a/metrics", True, True),
        ("GET", "/llama-cpp/a/props", False, False),
        ("GET", "/llama-cpp/a/slots", False, False),
        ("GET", "/llama-cpp/a/models", False, False),
        ("GET", "/llama-cpp/a/lora-adapters", False, False),
        ("HEAD", "/llama-cpp/a/v1/models", False, False),
        ("POST", "/llama-cpp/a/props", True, True),
        ("POST", "/v1/streams/lookup", False, False),
        ("POST", "/v1/a/newer/path", True, True),
        ("POST", "/llama-cpp/a/completion", True, True),
        ("POST", "/llama-cpp/a/v1/chat/completions", True, True),
        ("PUT", "/llama-cpp/a/completion", False, False),
        ("POST", "/llama-cpp/a/tools", False, False),
    ],
)
def test_observing_request_neither_starts_an_instance_nor_counts_as_use(
    method: str, path: str, starts: bool, counts: bool
) -> None:
    found = route(path)
    assert found is not None
    assert (may_start(found, method), counts_as_use(found, method)) == (starts, counts)
