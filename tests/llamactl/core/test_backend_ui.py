"""The port of the backends' pages: which browsers are sent there, and what it answers."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.core.backend_ui import announce_port, came_by_ui_port, mark_ui_port, ui_location
from llamactl.middleware.backend_ui_only import BackendUiOnly


async def unread() -> Any:
    raise AssertionError("no path is passed on")


def scope_of(
    *, host: str = "127.0.0.1:8080", port: int = 8080, state: Any = None, **headers: str
) -> dict[str, Any]:
    if state is None:
        state = {}
        announce_port(state, 8081)
    pairs = {"host": host, **{name.replace("_", "-"): text for name, text in headers.items()}}
    return {
        "type": "http",
        "scheme": "http",
        "server": ("127.0.0.1", port),
        "state": state,
        "headers": [(name.encode(), text.encode("latin-1")) for name, text in pairs.items()],
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8081/llama-cpp/x/?a=1"),
        ("[::1]:8080", "http://[::1]:8081/llama-cpp/x/?a=1"),
        ("gpu-box.lan:8080", "http://gpu-box.lan:8081/llama-cpp/x/?a=1"),
        # A reverse proxy, whose other ports are unknown.
        ("llm.example", None),
        ("llm.example:8443", None),
        ("user@evil.example:8080", None),
        ("evil.example:8080/", None),
        ("a b:8080", None),
        ("", None),
        ("gpu-box.lan:", None),
    ],
)
def test_a_browser_is_sent_to_the_port_of_the_host_that_it_names(
    host: str, expected: str | None
) -> None:
    scope = scope_of(host=host, sec_fetch_mode="navigate")
    assert ui_location(scope, "/llama-cpp/x/?a=1") == expected


@pytest.mark.parametrize(
    ("scheme", "port", "host", "expected"),
    [
        ("http", 80, "gpu-box.lan", "http://gpu-box.lan:81/llama-cpp/x/"),
        ("http", 80, "gpu-box.lan:80", "http://gpu-box.lan:81/llama-cpp/x/"),
        ("http", 80, "[::1]", "http://[::1]:81/llama-cpp/x/"),
        ("https", 443, "gpu-box.lan", "https://gpu-box.lan:81/llama-cpp/x/"),
        ("http", 443, "gpu-box.lan", None),
        ("http", 80, "gpu-box.lan:8080", None),
    ],
)
def test_a_browser_leaves_the_port_of_the_scheme_out(
    scheme: str, port: int, host: str, expected: str | None
) -> None:
    state: dict[str, Any] = {}
    announce_port(state, 81)
    scope = scope_of(host=host, port=port, state=state, sec_fetch_mode="navigate")
    assert ui_location(scope | {"scheme": scheme}, "/llama-cpp/x/") == expected


@pytest.mark.parametrize(
    "header", ["x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded"]
)
def test_a_reverse_proxy_on_a_port_of_the_same_number_is_known_by_its_headers(header: str) -> None:
    scope = scope_of(sec_fetch_mode="navigate")
    scope["headers"].append((header.encode(), b"https"))
    assert ui_location(scope, "/llama-cpp/x/") is None


def test_nginx_with_its_defaults_is_known_by_its_protocol() -> None:
    # It names its upstream as Host, which would lead the browser to its own machine.
    scope = scope_of(sec_fetch_mode="navigate") | {"http_version": "1.0"}
    assert ui_location(scope, "/llama-cpp/x/") is None


@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin", "websocket", ""])
def test_programs_and_pages_are_not_redirected(mode: str) -> None:
    assert ui_location(scope_of(sec_fetch_mode=mode), "/llama-cpp/x/") is None
    assert ui_location(scope_of(), "/llama-cpp/x/") is None


def test_a_browser_is_known_by_accept_where_it_sends_no_fetch_metadata() -> None:
    # Browsers send Sec-Fetch-… to https and loopback alone, not to http://gpu-box.lan.
    host = "gpu-box.lan:8080"
    page = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    expected = "http://gpu-box.lan:8081/llama-cpp/x/"
    assert ui_location(scope_of(host=host, accept=page), "/llama-cpp/x/") == expected
    for accept in ("*/*", "application/json", ""):
        assert ui_location(scope_of(host=host, accept=accept), "/llama-cpp/x/") is None
    by_script = scope_of(host=host, accept=page, sec_fetch_mode="cors")
    assert ui_location(by_script, "/llama-cpp/x/") is None


def test_a_browser_on_the_port_is_not_redirected() -> None:
    scope = scope_of(host="127.0.0.1:8081", port=8081, sec_fetch_mode="navigate")
    mark_ui_port(scope)
    assert came_by_ui_port(scope)
    assert ui_location(scope, "/llama-cpp/x/") is None


def test_a_server_without_the_port_redirects_nobody() -> None:
    scope = scope_of(state={}, sec_fetch_mode="navigate")
    assert not came_by_ui_port(scope)
    assert ui_location(scope, "/llama-cpp/x/") is None


@pytest.mark.parametrize(
    ("public", "ui", "expected"),
    [
        ("https://llm.example", "", None),
        ("https://llm.example", "https://ui.example", "https://ui.example/llama-cpp/x/"),
        ("", "https://ui.example/ui", "https://ui.example/ui/llama-cpp/x/"),
    ],
)
def test_behind_a_reverse_proxy_the_configured_url_counts(
    override: Any, public: str, ui: str, expected: str | None
) -> None:
    override(server={"public_url": public, "backend_ui_url": ui})
    assert ui_location(scope_of(sec_fetch_mode="navigate"), "/llama-cpp/x/") == expected


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/admin/", "/api/v1/instances", "/docs", "/v1/models", "/static/js/poll.js"),
        *("/healthz", "/llama-cpp", "//llama-cpp/x/", "/admin/llama-cpp/x/", "/llama-cppx/"),
    ],
)
async def test_the_port_answers_no_other_path(path: str) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = scope_of() | {"path": path, "raw_path": path.encode(), "query_string": b""}
    await BackendUiOnly(application)(scope | {"method": "GET"}, unread, send)
    assert sent[0]["status"] == 404
    assert b"server.port" in sent[1]["body"]


async def test_an_encoded_slash_does_not_make_a_path_of_the_port() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    path = {"path": "/llama-cpp/x/", "raw_path": b"/llama-cpp%2fx/", "query_string": b""}
    await BackendUiOnly(application)(scope_of() | path | {"method": "GET"}, unread, send)
    assert sent[0]["status"] == 404
