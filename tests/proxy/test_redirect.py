"""``Location`` of a backend's response: within the backend, or refused."""

from __future__ import annotations

import pytest

from proxy.errors import ForeignRedirect
from proxy.redirect import with_own_location
from proxy.routes.routes import Route, route

ORIGIN = "http://127.0.0.1:9000"
CHAT = "/v1/chat/completions"
PAGE = "/llama-cpp/gemma/"
PROXY = "/api/v1/instances/gemma/proxy/tools/call"


def location(value: str, path: str, prefix: str = "") -> str:
    found = route(path)
    assert isinstance(found, Route)
    headers = [(b"x-a", b"1"), (b"location", value.encode("latin-1"))]
    rest = found.rest or "/"
    kept, changed = with_own_location(headers, found, ORIGIN, "gemma", rest, prefix)
    assert kept == (b"x-a", b"1")
    assert changed[0] == b"location"
    return changed[1].decode()


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ("/v1/completions?a=1#b", CHAT, "/v1/completions?a=1#b"),
        ("http://127.0.0.1:9000/v1/completions", CHAT, "/v1/completions"),
        ("http://localhost:9000/v1/completions", CHAT, "/v1/completions"),
        ("completions", CHAT, "/v1/chat/completions"),
        ("/index.html", PAGE, "/llama-cpp/gemma/index.html"),
        ("index.html", PAGE, "/llama-cpp/gemma/index.html"),
        ("http://127.0.0.1:9000", PAGE, "/llama-cpp/gemma/"),
        ("/admin/", PAGE, "/llama-cpp/gemma/admin/"),
        ("/admin/", PROXY, "/api/v1/instances/gemma/proxy/admin/"),
        ("other?q=%20", PROXY, "/api/v1/instances/gemma/proxy/tools/other?q=%20"),
    ],
)
def test_a_location_on_the_backend_is_one_below_the_instance(
    value: str, path: str, expected: str
) -> None:
    assert location(value, path) == expected


@pytest.mark.parametrize(
    "value",
    [
        "https://evil.example/v1/chat/completions",
        "//evil.example/v1/chat/completions",
        "///evil.example/v1/",
        "\\\\evil.example/v1/",
        "/\\evil.example/v1/",
        "http:evil.example",
        "http:/evil.example/",
        "http://127.0.0.1:9000@evil.example/v1/",
        "http://user:pass@127.0.0.1:9000/v1/",
        "http://127.0.0.1:9001/v1/",
        "https://127.0.0.1:9000/v1/",
        "http://127.0.0.1.evil.example:9000/v1/",
        "javascript:alert(1)",
        "data:text/html,x",
        "\thttps://evil.example/",
        "/v1/\r\nset-cookie: a=1",
        "/v1/../admin/",
        "/v1/%2e%2E/admin/",
        "/v1//../../admin",
        "%2e%2e/stop",
        ".%2E/stop",
        "http://127.0.0.1:9000/a/%2e%2e/stop",
        "http://[::1/",
        "http://127.0.0.1:port/",
        "",
        "/v1/" + "a" * 9000,
        "/v1/é",
    ],
)
@pytest.mark.parametrize("path", [CHAT, PAGE, PROXY])
def test_any_other_location_is_refused(value: str, path: str) -> None:
    with pytest.raises(ForeignRedirect, match="gemma"):
        location(value, path)


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ("/index.html", PAGE, "/ui/llama-cpp/gemma/index.html"),
        ("/v1/completions", CHAT, "/ui/v1/completions"),
        ("/ui/a", PAGE, "/ui/llama-cpp/gemma/ui/a"),
    ],
)
def test_a_location_is_below_the_path_that_the_client_reaches(
    value: str, path: str, expected: str
) -> None:
    assert location(value, path, "/ui") == expected


@pytest.mark.parametrize("value", ["/admin/", "/api/v1/instances/x", "/", "/v1", "/v1x/"])
def test_an_inference_request_is_not_sent_to_llamactl_itself(value: str) -> None:
    with pytest.raises(ForeignRedirect):
        location(value, CHAT)


def test_two_locations_are_refused() -> None:
    found = route(CHAT)
    assert isinstance(found, Route)
    headers = [(b"location", b"/v1/a"), (b"location", b"/v1/b")]
    with pytest.raises(ForeignRedirect):
        with_own_location(headers, found, ORIGIN, "gemma", CHAT)
