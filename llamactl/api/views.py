"""What all API views are made of: how they read a request, and where they are.

Clients written for the Go program send no Accept header worth obeying and any Content-Type (curl
says it is a form), so neither is looked at: a body is JSON, an answer is JSON.
"""

from __future__ import annotations

from typing import Any, cast

from django.http import Http404, HttpRequest
from django.urls import URLPattern, path
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from llamactl.api.errors import JSONRenderer


class IgnoreHeaders(BaseContentNegotiation):
    """The view's first parser and renderer, whatever Content-Type and Accept say."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        first: BaseParser = parsers[0]
        return first

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class ApiRequest(Request):
    """DRF's request, which also sees a body that comes without a Content-Length (chunked)."""

    @property
    def stream(self) -> Any:
        return self._request


class ApiView(APIView):
    """The base of our views: JSON in, JSON out, OPTIONS without a key."""

    renderer_classes = [JSONRenderer]
    content_negotiation_class = IgnoreHeaders

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        return ApiRequest(
            request,
            parsers=self.get_parsers(),
            authenticators=self.get_authenticators(),
            negotiator=self.get_content_negotiator(),
            parser_context=self.get_parser_context(request),
        )

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """Which methods there are; DRF adds the ``Allow`` header."""
        return Response(status=204)


def body_of(request: Request) -> dict[str, object] | None:
    """The JSON object that came with the request; None where nothing did.

    Raises what ``StrictJSONParser`` does.
    """
    return cast("dict[str, object] | None", request.data)


class UnknownPath(ApiView):
    """Every path that is none: 404, but 401 without a key, which is to learn no paths."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise Http404


class ApiViewSet(ViewSetMixin, ApiView):
    """A view for several operations; the routes say which method is which operation."""


def endpoint(
    route: str, view: type[ApiViewSet], actions: dict[str, Any], *, name: str, **initkwargs: Any
) -> list[URLPattern]:
    """``route`` with and without a trailing slash; only the latter is in the schema."""
    return [
        path(route, view.as_view(actions, **initkwargs), name=name),
        path(f"{route}/", view.as_view(actions, schema=None, **initkwargs)),
    ]
