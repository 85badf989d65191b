"""How an error becomes an answer, and how answers are written: what DRF's settings name.

``rest_framework.views`` imports this module while it is itself half imported, so nothing here may
import it; the views' base is in ``endpoints``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer as CompactJSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.api.json_parser import StrictJSONParser
from llamactl.core.error_format import PathFamily, headers_for, seed_document
from llamactl.core.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    InvalidRequest,
    LlamactlError,
    MethodNotAllowed,
    PathNotFound,
    PermissionDenied,
)

__all__ = [
    "JSONRenderer",
    "StrictJSONParser",
    "exception_handler",
]

logger = logging.getLogger(__name__)


class JSONRenderer(CompactJSONRenderer):
    """JSON on one line, with the newline that the Go program ends it with."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        rendered = super().render(data, accepted_media_type, renderer_context)
        return rendered + b"\n" if rendered else rendered


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """The answer to a request that raised ``error``; what nobody foresaw is logged."""
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        body = {"error": {"message": str(error.detail), "type": "authentication_error"}}
        return Response(body, status=401, headers={"WWW-Authenticate": "Bearer"})
    refusal = to_llamactl_error(error, context["request"])
    if refusal.status == 500 and refusal is not error:
        logger.error(
            "%s %s failed", context["request"].method, context["request"].path, exc_info=error
        )
    headers = {
        name.decode().title(): value.decode()
        for name, value in headers_for(PathFamily.MANAGEMENT, refusal)
    }
    return Response(seed_document(refusal), status=refusal.status, headers=headers)


def to_llamactl_error(error: Exception, request: Request) -> LlamactlError:
    """What ``error`` is in our own tree: Django's and DRF's refusals, and faults of ours."""
    match error:
        case LlamactlError():
            return error
        case Http404() | exceptions.NotFound():
            return PathNotFound(f"there is no {request.path[:200]}; /docs lists what there is")
        case exceptions.MethodNotAllowed():
            return MethodNotAllowed(request.method or "", request.path)
        case DjangoPermissionDenied() | exceptions.PermissionDenied():
            return PermissionDenied()
        case RequestDataTooBig():
            return BodyTooLarge("Invalid request body: it is too large")
        case SuspiciousOperation() | exceptions.ParseError():
            return InvalidRequest(f"Invalid request: {error}")
        case OperationalError() | InterfaceError():
            logger.warning("database: %s", error)
            return DatabaseUnavailable("the database does not answer; try again", retry_after=5)
        case _:
            return LlamactlError("an unexpected error, which the log of llamactl describes")
