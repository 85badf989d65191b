from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routes.llama_cpp import EndpointKind, find


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "index.html",
        "sw.js",
        "manifest.webmanifest",
        "favicon.ico",
        "loading.html",
        "_app/version.json",
        "_app/immutable/bundle.CheKa0wg.js",
        "_app/immutable/assets/bundle.DeU5_J36.css",
        "apple-splash-portrait-750x1334.png",
        "recommended-mcp/github-light.png",
        "bundle.js",
    ],
)
def test_file_of_the_web_ui_is_public_and_only_read(rest: str) -> None:
    found = find(rest)
    assert (found.kind, found.path, set(found.methods)) == (
        EndpointKind.WEB_UI,
        f"/{rest}",
        {"GET", "HEAD"},
    )


@pytest.mark.parametrize(
    ("rest", "path", "methods"),
    [
        ("props", "/props", {"GET", "HEAD", "POST"}),
        ("props/", "/props", {"GET", "HEAD", "POST"}),
        ("completion", "/completion", {"POST"}),
        ("slots", "/slots", {"GET", "HEAD"}),
        ("slots/3", "/slots/3", {"POST"}),
        ("v1/models", "/v1/models", {"GET", "HEAD"}),
        ("v1/messages/count_tokens", "/v1/messages/count_tokens", {"POST"}),
        ("v1/a.json", "/v1/a.json", {"POST"}),
        ("v1/stream", "/v1/stream", {"GET", "HEAD", "DELETE"}),
    ],
)
def test_endpoint_has_its_methods_and_the_path_without_a_slash_at_the_end(
    rest: str, path: str, methods: set[str]
) -> None:
    found = find(rest)
    assert (found.kind, found.path, set(found.methods)) == (EndpointKind.ENDPOINT, path, methods)


def test_metrics_are_got_however_they_are_asked_for() -> None:
    methods = find("metrics").methods
    assert {methods[method].sent_as for method in ("GET", "POST")} == {"GET"}


@pytest.mark.parametrize(
    "rest",
    [
        "tools",
        "cors-proxy",
        "models/unload",
        "v1",
        "v1/",
        "/",
        "//props",
        "/props",
        "props//",
        "props/x",
        "PROPS",
        "%70rops",
        "props%00",
        "props\x00",
        "props\n",
        "props;a",
        "props?x",
        "../demo2/props",
        "..",
        ".",
        "./props",
        "v1/../props",
        "v1/%2e%2e/tools",
        "v1/..%2ftools",
        "v1/..",
        "v1//chat",
        "v1/./chat",
        "v1\\..\\tools",
        "v1/a/b/c/d/e/f",
        "_app/../tools",
        "_app/%2e%2e/x.js",
        "_app//x.js",
        "x.js/",
        "x.js/../tools",
        "../x.js",
        "..x/../a.js",
        ".env.js",
        ".git/config.txt",
        "x.js%00",
        "x.js\n",
        "x.py",
        "x.gguf",
        "x.JS",
        "a/b/c/d/e/f.js",
        "slots/x",
        "slots/-1",
        "slots/99999",
        "\u0661.js",
        "slots/\u0661",
    ],
)
def test_every_other_spelling_leads_nowhere(rest: str) -> None:
    assert find(rest).kind is EndpointKind.NONE


@given(st.text(alphabet="av1/.%2e-_~;?\\\n\x00pros", max_size=30))
def test_exposed_path_has_no_ambiguous_spelling(rest: str) -> None:
    found = find(rest)
    if found.kind is not EndpointKind.NONE:
        assert found.path.rstrip("/") == f"/{rest}".rstrip("/")
        assert not set(found.path) & set("%;?\\\n\x00")
        assert not {"", ".", ".."} & set(found.path.split("/")[1:-1])
        assert found.path.split("/")[-1] not in (".", "..")
