"""Which path is answered by what. The proxy's own paths never get here (``proxy.routing``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

import llamactl.openapi  # noqa: F401 - says how keys are shown in the schema
from llamactl.config import current
from llamactl.endpoints import UnknownPath, endpoint
from llamactl.server_info import ServerViewSet, healthz

View = Callable[..., HttpResponseBase]


def if_swagger_enabled(view: View) -> View:
    """``view``, or 404 where ``server.enable_swagger`` is off."""

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not current().server.enable_swagger:
            raise Http404
        return view(request, *args, **kwargs)

    return guarded


schema = if_swagger_enabled(SpectacularAPIView.as_view(authentication_classes=[]))
swagger_ui = if_swagger_enabled(
    SpectacularSwaggerView.as_view(url_name="schema", authentication_classes=[])
)
to_docs = if_swagger_enabled(RedirectView.as_view(pattern_name="docs"))

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
    path("docs", swagger_ui, name="docs"),
    path("docs/", to_docs),
    re_path(r"^swagger(?:/|\Z)", to_docs),
    path("api/schema", schema, name="schema"),
    path("api/schema/", schema),
    path("api/v1/", include("instances.api.urls")),
    path("api/v1/", include("keys.api.urls")),
    path("api/v1/", include("nodes.api.urls")),
    *endpoint("api/v1/version", ServerViewSet, {"get": "version"}, name="version"),
    *endpoint("api/v1/config", ServerViewSet, {"get": "config"}, name="config"),
    re_path(r"^api/v1(?:/|\Z)", UnknownPath.as_view(schema=None)),
]

handler400 = "llamactl.error_pages.bad_request"
handler403 = "llamactl.error_pages.permission_denied"
handler404 = "llamactl.error_pages.not_found"
handler500 = "llamactl.error_pages.server_error"
