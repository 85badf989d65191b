"""Django's own error handlers answer in the shape of the path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import Client, RequestFactory

from llamactl.api import error_pages

HANDLERS = [
    (error_pages.bad_request, 400, "invalid_request"),
    (error_pages.permission_denied, 403, "permission_denied"),
    (error_pages.not_found, 404, "not_found"),
]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def by_browser(path: str, **more: Any) -> HttpRequest:
    return RequestFactory().get(path, headers={"Accept": BROWSER, **more})


@pytest.mark.parametrize(("handler", "status", "code"), HANDLERS)
@pytest.mark.parametrize(
    "request_",
    [
        by_browser("/api/x"),
        RequestFactory().get("/x"),
        RequestFactory().get("/x", headers={"Accept": "*/*"}),
        RequestFactory().get("/x", headers={"Accept": "application/json"}),
        by_browser("/x", **{"Content-Type": "application/json"}),
    ],
)
def test_errors_are_documents_for_programs(
    handler: error_pages.Handler, status: int, code: str, request_: HttpRequest
) -> None:
    document = handler(request_, Exception())
    assert (document.status_code, document["Content-Type"]) == (status, "application/json")
    assert json.loads(document.content)["error"] == code


@pytest.mark.parametrize(("handler", "status", "code"), HANDLERS)
def test_errors_are_pages_for_browsers(
    handler: error_pages.Handler, status: int, code: str
) -> None:
    page = handler(by_browser("/x"), Exception())
    assert page.status_code == status
    assert page["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "headers", "error"),
    [
        ("/completions", {}, {"code": "not_found", "type": "invalid_request_error"}),
        ("//v1/chat/completions", {}, {"code": "not_found", "type": "invalid_request_error"}),
        ("/api/v1/chat/completions", {}, {"code": "not_found", "type": "invalid_request_error"}),
        ("/api/v1/files", {}, {"code": "not_found", "type": "invalid_request_error"}),
        ("/anthropic/v1/messages", {}, {"code": "not_found", "type": "not_found_error"}),
        (
            "/anthropic/models",
            {"anthropic-version": "1"},
            {"code": "not_found", "type": "not_found_error"},
        ),
        ("/api/v1/models", {"anthropic-version": "1"}, {"type": "not_found_error"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_wrong_base_url_is_404_with_any_key_in_the_shape_of_its_client(
    path: str, headers: dict[str, str], error: dict[str, str], method: str
) -> None:
    client = Client(enforce_csrf_checks=True, headers={**headers, "Authorization": "Bearer any"})
    answer = client.generic(method, path, b"{}", content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")
    assert error.items() <= answer.json()["error"].items()
    message = answer.json()["error"]["message"]
    assert "use /v1/" in message or message.startswith("llamactl has no")


@pytest.mark.parametrize("path", ["/api/tags", "/api/chat/", "/api/v1/api/show"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_ollamas_client_gets_a_sentence_with_the_base_url(path: str, method: str) -> None:
    answer = Client(enforce_csrf_checks=True).generic(method, path, headers={"Accept": BROWSER})
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}
    assert "http://testserver/v1 " in answer.json()["error"]


def test_browser_at_a_wrong_base_url_gets_a_page() -> None:
    page = Client().get("/openai/chat/completions", headers={"Accept": BROWSER})
    assert (page.status_code, page["Content-Type"][:9]) == (404, "text/html")


READ_ONLY = ("/", "/healthz", "/docs", "/docs/", "/swagger", "/swagger/doc.json", "/api/schema")


@pytest.mark.parametrize("path", READ_ONLY)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_path_that_only_shows_something_is_405_for_other_methods(path: str, method: str) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = client.generic(method, path, b"{}", content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (405, "application/json")
    assert answer.json()["error"] == "method_not_allowed"
    assert answer["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", READ_ONLY)
def test_options_of_such_a_path_is_204_with_its_methods(path: str) -> None:
    answer = Client(enforce_csrf_checks=True).options(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer["Allow"] == "GET, HEAD, OPTIONS"


def test_a_browser_gets_a_page_that_says_so() -> None:
    page = Client(enforce_csrf_checks=True).post("/", headers={"Accept": BROWSER})
    assert (page.status_code, page["Allow"]) == (405, "GET, HEAD")
    assert "only shows something" in page.content.decode()


@pytest.mark.django_db
def test_a_form_without_its_token_is_refused_in_the_shape_of_its_sender() -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.post("/admin/login/", {"username": "x"}, headers={"Accept": BROWSER})
    assert page.status_code == 403
    assert "This form has expired" in page.content.decode()
    document = client.post("/admin/login/", {"username": "x"})
    assert document.status_code == 403
    assert document.json()["error"] == "permission_denied"
    assert "/api/v1" in document.json()["details"]


def test_a_failure_is_500_without_details() -> None:
    document = error_pages.server_error(RequestFactory().get("/api/x"))
    assert document.status_code == 500
    assert json.loads(document.content)["error"] == "internal_error"
    assert error_pages.server_error(by_browser("/x")).status_code == 500
