"""Paths below the prefix of ``server.public_url``."""

from __future__ import annotations

import pytest

from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.middleware.public_prefix import PrefixAddition, PrefixRemoval, can_remove


async def passed_on(layer: type[PrefixAddition | PrefixRemoval], scope: Scope) -> Scope:
    """The scope that the layer passes on for the prefix ``/llm``."""
    seen: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def unused(*_: object) -> None:
        raise AssertionError

    await layer(application, "/llm")(scope, unused, unused)  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/llm/v1/models", "/v1/models"),
        ("/llm/", "/"),
        ("/llm", "/"),
        ("/v1/models", "/v1/models"),
        ("/llmx/v1", "/llmx/v1"),
        ("/", "/"),
        ("/admin/llm/", "/admin/llm/"),
        ("/llm/llm/x", "/llm/x"),
    ],
)
async def test_the_prefix_is_removed_where_the_proxy_left_it(
    kind: str, path: str, expected: str
) -> None:
    scope = await passed_on(PrefixRemoval, {"type": kind, "path": path, "raw_path": path.encode()})
    assert (scope["path"], scope["raw_path"]) == (expected, expected.encode())


async def test_percent_signs_stay_in_the_raw_path() -> None:
    scope = {"type": "http", "path": "/llm/a/b", "raw_path": b"/llm/a%2Fb"}
    assert (await passed_on(PrefixRemoval, scope))["raw_path"] == b"/a%2Fb"
    # It should not take a prefix in percent signs for the prefix.
    scope = {"type": "http", "path": "/llm/a", "raw_path": b"/%6clm/a"}
    assert await passed_on(PrefixRemoval, scope) == scope


async def test_the_prefix_is_added_for_django() -> None:
    scope = await passed_on(PrefixAddition, {"type": "http", "path": "/admin/"})
    assert (scope["path"], scope["root_path"]) == ("/llm/admin/", "/llm")


async def test_other_scopes_pass() -> None:
    assert await passed_on(PrefixRemoval, {"type": "lifespan"}) == {"type": "lifespan"}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("/llm", True), ("/a/api", True), ("", False), ("/api", False), ("/v1/x", False)],
)
def test_a_prefix_that_begins_like_our_own_paths_stays(prefix: str, expected: bool) -> None:
    assert can_remove(prefix) is expected
