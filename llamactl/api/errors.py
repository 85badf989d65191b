"""Exception handler and JSON renderer of the management API, named in DRF's settings.

``rest_framework.views`` imports this module while ``rest_framework.views`` itself is half imported,
so this module must not import it. The base class of the views is in ``llamactl.api.views``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer as CompactJSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.api.json_parser import StrictJSONParser
from llamactl.core.database_errors import to_unavailable
from llamactl.core.error_format import document_for, family_of, headers_for
from llamactl.core.errors import (
    BodyTooLarge,
    InvalidKey,
    InvalidRequest,
    LlamactlError,
    MethodNotAllowed,
    MissingKey,
    PathNotFound,
    PermissionDenied,
    UnexpectedFailure,
)
from llamactl.core.links import public_path

__all__ = [
    "JSONRenderer",
    "StrictJSONParser",
    "exception_handler",
]

logger = logging.getLogger(__name__)


class JSONRenderer(CompactJSONRenderer):
    """JSON on one line, ending with a newline as in the Go program."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        rendered = super().render(data, accepted_media_type, renderer_context)
        return rendered + b"\n" if rendered else rendered


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """Build the error response for ``error``, and log an unexpected exception."""
    refusal = to_llamactl_error(error, context["request"])
    if isinstance(refusal, UnexpectedFailure):
        logger.error(
            "%s %s failed", context["request"].method, context["request"].path, exc_info=error
        )
    request = context["request"]
    family = family_of(request.path_info, is_anthropic="anthropic-version" in request.headers)
    headers = {
        name.decode().title(): value.decode() for name, value in headers_for(family, refusal)
    }
    return Response(document_for(family, refusal), status=refusal.status, headers=headers)


def to_llamactl_error(error: Exception, request: Request) -> LlamactlError:
    """Convert an exception of Django or DRF to our tree; any other is an UnexpectedFailure."""
    match error:
        case LlamactlError():
            return error
        case exceptions.NotAuthenticated():
            return MissingKey()
        case exceptions.AuthenticationFailed():
            return InvalidKey()
        case Http404() | exceptions.NotFound():
            return PathNotFound(
                f"there is no {request.path[:200]}; {public_path('/docs')} lists all paths"
            )
        case exceptions.MethodNotAllowed():
            return MethodNotAllowed(request.method or "", request.path)
        case DjangoPermissionDenied() | exceptions.PermissionDenied():
            return PermissionDenied()
        case RequestDataTooBig():
            return BodyTooLarge("Invalid request body: it is too large")
        case SuspiciousOperation() | exceptions.ParseError():
            return InvalidRequest(f"Invalid request: {error}")
        case _:
            if unavailable := to_unavailable(error):
                logger.warning("database: %s", error)
            return unavailable or UnexpectedFailure()
