"""Django's own error handlers answer in the shape of the path."""

from __future__ import annotations

import json

import pytest
from django.test import RequestFactory

from llamactl.api import error_pages

HANDLERS = [
    (error_pages.bad_request, 400, "invalid_request"),
    (error_pages.permission_denied, 403, "permission_denied"),
    (error_pages.not_found, 404, "not_found"),
]


@pytest.mark.parametrize(("handler", "status", "code"), HANDLERS)
def test_errors_are_documents_below_api_and_pages_elsewhere(
    handler: error_pages.Handler, status: int, code: str
) -> None:
    document = handler(RequestFactory().get("/api/x"), Exception())
    assert (document.status_code, document["Content-Type"]) == (status, "application/json")
    assert json.loads(document.content)["error"] == code
    page = handler(RequestFactory().get("/x"), Exception())
    assert page.status_code == status
    assert page["Content-Type"].startswith("text/html")


def test_a_failure_is_500_without_details() -> None:
    document = error_pages.server_error(RequestFactory().get("/api/x"))
    assert document.status_code == 500
    assert json.loads(document.content)["error"] == "internal_error"
    assert error_pages.server_error(RequestFactory().get("/x")).status_code == 500
