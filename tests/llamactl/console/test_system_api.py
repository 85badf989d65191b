from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.management import call_command
from django.db import OperationalError
from django.http import Http404
from django.test import Client
from django.urls import get_resolver
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from llamactl.api.errors import exception_handler
from llamactl.core.errors import InvalidParameter, LlamactlError
from tests.support.asgi import AsgiRequest


def handled(error: Exception) -> Any:
    request = Request(APIRequestFactory().get("/api/v1/x?api_key=secret"))
    return exception_handler(error, {"request": request})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidParameter("no"), 400, "invalid_parameter"),
        (Http404(), 404, "not_found"),
        (exceptions.NotFound(), 404, "not_found"),
        (exceptions.MethodNotAllowed("PATCH"), 405, "method_not_allowed"),
        (PermissionDenied(), 403, "permission_denied"),
        (RequestDataTooBig(), 413, "invalid_request"),
        (SuspiciousOperation("too many fields"), 400, "invalid_request"),
        (OperationalError("database is locked"), 503, "database_unavailable"),
    ],
)
def test_each_refusal_has_the_seeds_shape(error: Exception, status: int, code: str) -> None:
    response = handled(error)
    assert response.status_code == status
    assert response.data["error"] == code
    assert response.data["details"]


def test_what_nobody_foresaw_is_logged_and_tells_nothing(caplog: Any) -> None:
    with caplog.at_level(logging.ERROR):
        response = handled(RuntimeError("the inside of things"))
    assert response.status_code == 500
    assert response.data["error"] == "internal_error"
    assert "inside" not in json.dumps(response.data)
    # It should be in the log with its traceback, without the key in the query.
    assert "the inside of things" in caplog.text
    assert "secret" not in caplog.text


def test_retry_after_is_whole_seconds() -> None:
    class LaterError(LlamactlError):
        status = 503

    assert handled(LaterError("wait", retry_after=0.2))["Retry-After"] == "1"
    assert "Retry-After" not in handled(LaterError("wait"))


@pytest.mark.parametrize(
    "path", ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/nodes/a/b", "/api/v1/%00/%FF%0A"]
)
def test_an_unknown_path_needs_a_key_and_is_404(api: Client, path: str) -> None:
    assert Client().get(path).status_code == 401
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "BREW"):
        response = api.generic(method, path)
        assert response.status_code == 404, method
        assert response.json()["error"] == "not_found"


def test_a_wrong_method_needs_a_key_and_is_405(api: Client) -> None:
    assert Client().patch("/api/v1/instances").status_code == 401
    response = api.patch("/api/v1/instances")
    assert response.status_code == 405
    assert response.json()["error"] == "method_not_allowed"
    assert response["Allow"] == "GET, HEAD, OPTIONS"


def test_options_needs_no_key() -> None:
    response = Client().options("/api/v1/instances/x")
    assert response.status_code == 204
    assert response["Allow"] == "GET, POST, PUT, DELETE, HEAD, OPTIONS"
    assert Client().options("/api/v1/nothing").status_code == 404


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=0.5", "*/*", "nonsense"])
def test_the_accept_header_does_not_matter(api: Client, accept: str) -> None:
    response = api.get("/api/v1/config?format=xml", headers={"accept": accept})
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.content.endswith(b"\n")


@pytest.mark.parametrize("name", ["version", "config", "nodes", "instances", "auth/keys"])
@pytest.mark.django_db
def test_a_trailing_slash_is_the_same_path(api: Client, name: str) -> None:
    plain, slashed = api.get(f"/api/v1/{name}"), api.get(f"/api/v1/{name}/")
    assert (plain.status_code, plain.content) == (200, slashed.content)


@pytest.mark.parametrize(
    "content_type",
    ["", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "a" * 500],
)
def test_a_body_is_json_whatever_the_content_type_says(api: Client, content_type: str) -> None:
    # It should take what curl -d sends, which calls everything a form.
    response = api.generic(
        "POST",
        "/api/v1/backends/vllm/parse-command",
        json.dumps({"command": "vllm serve m"}),
        content_type=content_type,
    )
    assert response.status_code == 200, response.content
    assert response.json()["backend_options"] == {"model": "m"}


async def test_a_chunked_body_is_read(management_key: str) -> None:
    # It should not need a Content-Length, which the scope here has none of.
    exchange = AsgiRequest(
        get_asgi_application(),
        "/api/v1/backends/vllm/parse-command",
        json={"command": "vllm serve m"},
        key=management_key,
    )
    answer = await exchange.finish()
    assert (answer.status, answer.json()["backend_options"]) == (200, {"model": "m"})


def test_version_is_text(api: Client) -> None:
    from llamactl import __version__

    response = api.get("/api/v1/version")
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response.content == (
        f"Version: {__version__}\nCommit: unknown\nBuild Time: unknown\n".encode()
    )


def test_config_has_no_secrets(api: Client, management_key: str) -> None:
    response = api.get("/api/v1/config")
    assert response.json()["auth"]["management_keys"] == []
    assert response.json()["local_node"] == "main"
    assert management_key not in response.content.decode()


def test_healthz_needs_no_key_and_no_database() -> None:
    # It should pass without the django_db mark: any query would fail the test.
    assert Client().get("/healthz").json() == {"status": "ok"}


def test_the_front_door_leads_to_the_admin() -> None:
    response = Client().get("/")
    assert (response.status_code, response["Location"]) == (302, "/admin/")


@pytest.mark.parametrize("path", ["/swagger", "/swagger/", "/swagger/index.html", "/docs/"])
def test_swagger_leads_to_the_docs(path: str) -> None:
    assert Client().get(path)["Location"] == "/docs"


@pytest.mark.django_db  # closing a response looks after the connections
def test_the_docs_come_from_this_server_alone() -> None:
    page = Client().get("/docs").content.decode()
    assert "https://" not in page
    assets = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(assets) > 2
    for asset in assets:
        response = Client().get(asset)
        response.close()
        assert response.status_code == 200, asset


def test_the_schema_needs_no_key_and_ignores_a_wrong_one() -> None:
    response = Client().get("/api/schema?format=json", headers={"authorization": "Bearer wrong"})
    assert response.status_code == 200
    assert "/api/v1/instances/{name}/start" in response.json()["paths"]


@pytest.mark.parametrize("path", ["/docs", "/api/schema", "/swagger/"])
def test_swagger_can_be_switched_off(override: Any, path: str) -> None:
    override(server={"enable_swagger": False})
    assert Client().get(path).status_code == 404


def test_the_schema_is_clean() -> None:
    call_command("spectacular", validate=True, fail_on_warn=True, file="/dev/null")


def test_the_schema_has_each_path_once() -> None:
    paths = Client().get("/api/schema?format=json").json()["paths"]
    # llama.cpp's page is at a folder: its links are relative to that.
    assert [path for path in paths if path.endswith("/")] == ["/llama-cpp/{name}/"]


def test_an_unknown_page_says_what_to_do() -> None:
    response = Client().get("/nothing-here", headers={"Accept": "text/html"})
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
    assert b"There is no such page" in response.content
    assert Client().get("/api/nothing").json()["error"] == "not_found"


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_each_kind_of_refusal_has_its_page(status: int, rf: Any) -> None:
    handler = get_resolver().resolve_error_handler(status)
    arguments = [] if status == 500 else [Exception("inside")]
    response = handler(rf.get("/x", headers={"Accept": "text/html"}), *arguments)
    assert response.status_code == status
    assert b"<h1>" in response.content
    assert b"inside" not in response.content
    assert handler(rf.get("/api/x"), *arguments)["Content-Type"] == "application/json"
