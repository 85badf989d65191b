"""The OpenAPI document and its Swagger page, or 404 with ``server.enable_swagger`` off.

Neither needs a key, as in the seed: the document is the same for every llamactl.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularSwaggerView

from llamactl.api.error_pages import read_only
from llamactl.api.views import IgnoreHeaders
from llamactl.config import current

View = Callable[..., HttpResponseBase]
_RENDERERS: dict[str, Any] = {"json": OpenApiJsonRenderer, "yaml": OpenApiYamlRenderer}


@cache
def document() -> dict[str, Any]:
    """Generate the OpenAPI document, once a process: it takes a second, and needs no key."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    made: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return made


@cache
def _rendered(format: str) -> bytes:
    rendered: bytes = _RENDERERS[format]().render(document())
    return rendered


def _answer(format: str) -> HttpResponse:
    return HttpResponse(
        _rendered(format),
        content_type=_RENDERERS[format].media_type,
        headers={"Content-Disposition": f'inline; filename="llamactl.{format}"'},
    )


def _schema(request: HttpRequest) -> HttpResponse:
    """Answer in JSON if ``format`` or ``Accept`` names JSON, else in YAML."""
    asked = request.GET.get("format", request.headers.get("Accept", ""))
    return _answer("json" if "json" in asked else "yaml")


def _schema_json(request: HttpRequest) -> HttpResponse:
    return _answer("json")


def _if_enabled(view: View) -> View:
    """Answer 404 instead of ``view`` with ``server.enable_swagger`` off."""

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not current().server.enable_swagger:
            raise Http404
        return view(request, *args, **kwargs)

    return read_only(guarded)


_page = _if_enabled(
    SpectacularSwaggerView.as_view(
        url_name="schema",
        template_name="docs.html",
        authentication_classes=[],
        permission_classes=[],
        content_negotiation_class=IgnoreHeaders,
    )
)
_to_page = _if_enabled(RedirectView.as_view(pattern_name="docs"))

urlpatterns: list[URLPattern] = [
    path("docs", _page, name="docs"),
    path("docs/", _to_page),
    # The paths of the Go program, for tools and for people.
    path("swagger/doc.json", _if_enabled(_schema_json)),
    re_path(r"^swagger(?:/|\Z)", _to_page),
    path("api/schema", _if_enabled(_schema), name="schema"),
    path("api/schema/", _if_enabled(_schema)),
]
