"""Where is the OpenAPI document, and the page that shows it? At neither, with them switched off.

Neither needs a key, as in the seed: they tell what any llamactl can do, and nothing of this one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularJSONAPIView,
    SpectacularSwaggerView,
)

from llamactl.config import current

View = Callable[..., HttpResponseBase]


class OnceGenerator(SchemaGenerator):  # type: ignore[no-untyped-call]
    """Makes the document once a process: it takes a second, and anyone may ask for it."""

    def get_schema(self, request: object = None, public: bool = False) -> dict[str, Any]:
        return _document()


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return document


def _if_enabled(view: View) -> View:
    """``view``, or 404 where ``server.enable_swagger`` is off."""

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not current().server.enable_swagger:
            raise Http404
        return view(request, *args, **kwargs)

    return guarded


_OPEN: dict[str, Any] = {"authentication_classes": [], "permission_classes": []}
_schema = _if_enabled(SpectacularAPIView.as_view(generator_class=OnceGenerator, **_OPEN))
_schema_json = _if_enabled(SpectacularJSONAPIView.as_view(generator_class=OnceGenerator, **_OPEN))
_page = _if_enabled(
    SpectacularSwaggerView.as_view(url_name="schema", template_name="docs.html", **_OPEN)
)
_to_page = _if_enabled(RedirectView.as_view(pattern_name="docs"))

urlpatterns: list[URLPattern] = [
    path("docs", _page, name="docs"),
    path("docs/", _to_page),
    # Where the Go program has it: tools fetch the one, people open the other.
    path("swagger/doc.json", _schema_json),
    re_path(r"^swagger(?:/|\Z)", _to_page),
    path("api/schema", _schema, name="schema"),
    path("api/schema/", _schema),
]
