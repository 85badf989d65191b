"""Django's error handlers: HTML pages, and the error document below ``/api/``."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from llamactl.core.error_format import render
from llamactl.core.errors import (
    InvalidRequest,
    LlamactlError,
    PathNotFound,
    PermissionDenied,
    UnexpectedFailure,
)
from llamactl.core.links import public_path

Handler = Callable[[HttpRequest, Exception], HttpResponse]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _response(request, InvalidRequest("Invalid request"))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _response(request, PermissionDenied())


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _response(
        request,
        PathNotFound(f"there is nothing at this path; {public_path('/docs')} lists all paths"),
    )


def server_error(request: HttpRequest) -> HttpResponse:
    return _response(request, UnexpectedFailure())


def _response(request: HttpRequest, error: LlamactlError) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        status, headers, body = render(request.path_info, error)
        fields = {name.decode(): value.decode() for name, value in headers}
        return HttpResponse(body, status=status, headers=fields)
    # Rendered without the request: its context processors may need the very database that failed.
    return HttpResponse(render_to_string(f"errors/{error.status}.html"), status=error.status)
