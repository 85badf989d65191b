"""The answers of Django's own refusals: pages for people, the seed's JSON below /api/."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

_API_CODES = {400: "invalid_request", 403: "permission_denied", 404: "not_found"}
_API_DETAILS = {
    400: "Invalid request",
    403: "permission denied",
    404: "there is nothing at this path; /docs lists what there is",
    500: "an unexpected error, which the log of llamactl describes",
}


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 400)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    return _answer(request, 500)


def _answer(request: HttpRequest, status: int) -> HttpResponse:
    if request.path.startswith("/api/"):
        code = _API_CODES.get(status, "internal_error")
        return JsonResponse({"error": code, "details": _API_DETAILS[status]}, status=status)
    # Rendered without the request: its context processors may need the very database that failed.
    return HttpResponse(render_to_string(f"errors/{status}.html"), status=status)
