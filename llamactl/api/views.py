"""Base classes and routes of the API's views.

Accept and Content-Type are ignored, since clients of the Go program send arbitrary values (curl's
default is a form). Request and response bodies are JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from django.http import Http404, HttpRequest, QueryDict
from django.urls import URLPattern, path
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from llamactl.api.errors import JSONRenderer
from llamactl.core.errors import InvalidParameter
from llamactl.core.links import public_base_url
from llamactl.core.nearest_name import nearest_name
from llamactl.core.unknown_paths import refusal_of

KEY_PARAMETER = "api_key"


class IgnoreHeaders(BaseContentNegotiation):
    """Content negotiation that always selects the view's first parser and renderer."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        first: BaseParser = parsers[0]
        return first

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class ApiRequest(Request):
    """DRF's request, but also with a body of no Content-Length (chunked)."""

    @property
    def stream(self) -> Any:
        return self._request


class ApiView(APIView):
    """Base of our views: JSON in, JSON out, OPTIONS without a key."""

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
        """Answer with 204; DRF adds the ``Allow`` header."""
        return Response(status=204)


def request_document(request: Request) -> dict[str, object] | None:
    """Return the JSON object of the request, or None without a body.

    Raises the errors of ``StrictJSONParser``.
    """
    return cast("dict[str, object] | None", request.data)


class UnknownPath(ApiView):
    """Unknown path: 404 with a key, and 401 without one, so that paths stay hidden.

    A path of another API (``/api/v1/chat/completions``) is 404 with any key: its client has an
    inference key, and needs the right path.
    """

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        misdirected = refusal_of(request.path_info, public_base_url(request))
        if misdirected is not None:
            raise misdirected
        super().initial(request, *args, **kwargs)
        raise Http404


class ApiViewSet(ViewSetMixin, ApiView):
    """A view with several operations; the routes map methods to operations."""

    query_parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Operation → its query parameters, for the operations that change something."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        # A method without an operation gets 405, whatever its parameters.
        if request.method not in SAFE_METHODS and self.action is not None:
            refuse_unknown_parameters(
                request.query_params, self.query_parameters.get(self.action, ())
            )


def refuse_unknown_parameters(query: QueryDict, known: tuple[str, ...]) -> None:
    """Raise InvalidParameter for a parameter that has no effect: ``?dryrun=true`` would save."""
    for name, values in query.lists():
        if name == KEY_PARAMETER:
            continue
        if name not in known:
            nearest = nearest_name(name, known)
            hint = f"did you mean {nearest}?" if nearest else f"known: {', '.join(known) or 'none'}"
            raise InvalidParameter(f"Unknown query parameter {name[:80]!r}; {hint}")
        if len(values) > 1:
            raise InvalidParameter(f"Query parameter {name} must be given once, got {len(values)}")


def endpoint(
    route: str, view: type[ApiViewSet], actions: dict[str, Any], *, name: str, **initkwargs: Any
) -> list[URLPattern]:
    """Return ``route`` with and without a trailing slash; the schema has it without."""
    return [
        path(route, view.as_view(actions, **initkwargs), name=name),
        path(f"{route}/", view.as_view(actions, schema=None, **initkwargs)),
    ]
