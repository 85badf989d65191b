from __future__ import annotations

import pytest

from proxy.routing import Route, Side, route


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/models", Route(Side.MODELS)),
        ("/v1/chat/completions", Route(Side.INFERENCE, rest="/v1/chat/completions")),
        ("/api/v1/instances/a/proxy", Route(Side.INSTANCE, "a", "/")),
        ("/api/v1/instances/a.b/proxy/x%2Fy/z", Route(Side.INSTANCE, "a.b", "/x%2Fy/z")),
        ("/api/v1/instances/a", None),
        ("/api/v1/instances/a/proxyx", None),
        ("/api/v1/instances/a/b/proxy", None),
        ("/v1x", None),
        ("/admin/", None),
        ("/", None),
    ],
)
def test_paths_of_the_proxy_are_told_from_djangos(path: str, found: Route | None) -> None:
    assert route(path) == found
