"""Django's error handlers: an HTML page for a browser, and the error document for a program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.views.decorators.csrf import csrf_exempt

from llamactl.core.database_errors import to_unavailable
from llamactl.core.error_format import render
from llamactl.core.errors import (
    InvalidRequest,
    LlamactlError,
    MethodNotAllowed,
    PathNotFound,
    PermissionDenied,
    UnexpectedFailure,
)
from llamactl.core.links import public_base_url, public_path
from llamactl.core.unknown_paths import refusal_of

Handler = Callable[[HttpRequest, Exception], HttpResponse]
View = Callable[..., HttpResponseBase]

READ_METHODS = ("GET", "HEAD")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    # Of Django's own errors (SuspiciousOperation) no page tells.
    details = str(exception) if isinstance(exception, BadRequest) else ""
    return _response(request, InvalidRequest(details or "Invalid request"))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _response(request, PermissionDenied())


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    misdirected = refusal_of(request.path_info, public_base_url(request))
    return _response(
        request,
        misdirected
        or PathNotFound(f"there is nothing at this path; {public_path('/docs')} lists all paths"),
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """Report the exception under way, which Django calls this handler for."""
    return _response(request, to_unavailable(sys.exception()) or UnexpectedFailure())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse a form without its token; named in the settings."""
    error = PermissionDenied(
        "this form has no valid token: reload its page, and send the form with the page's cookies;"
        f" programs use the management API below {public_path('/api/v1')}"
    )
    return _response(request, error, "errors/csrf.html")


def read_only(view: View) -> View:
    """Make ``view`` answer OPTIONS with 204, and a write with 405 instead of a CSRF error."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in READ_METHODS:
            return view(request, *args, **kwargs)
        if request.method == "OPTIONS":
            return HttpResponse(
                status=204, headers={"Allow": ", ".join((*READ_METHODS, "OPTIONS"))}
            )
        error = MethodNotAllowed(request.method or "", request.path, READ_METHODS)
        return _response(request, error)

    return csrf_exempt(guarded)


def wants_page(request: HttpRequest) -> bool:
    """Whether an error is for a browser: a client that accepts HTML and has sent no JSON."""
    accepts_html = "text/html" in request.headers.get("Accept", "").lower()
    has_json = "json" in request.headers.get("Content-Type", "").lower()
    return accepts_html and not has_json and not request.path_info.startswith("/api/")


def _response(
    request: HttpRequest, error: LlamactlError, template: str | None = None
) -> HttpResponse:
    if not wants_page(request):
        status, headers, body = render(
            request.path_info, error, is_anthropic="anthropic-version" in request.headers
        )
        fields = {name.decode(): value.decode() for name, value in headers}
        return HttpResponse(body, status=status, headers=fields)
    # Rendered without the request: its context processors may need the very database that failed.
    page = render_to_string(template or f"errors/{error.status}.html", {"details": error.details})
    allow = {"Allow": ", ".join(error.allowed)} if isinstance(error, MethodNotAllowed) else None
    return HttpResponse(page, status=error.status, headers=allow)
