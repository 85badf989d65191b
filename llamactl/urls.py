"""Django's routes. The proxy answers its own paths before Django (``proxy.routes``)."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from llamactl.admin.login.views import change_password, login
from llamactl.api.error_pages import read_only
from llamactl.api.views import UnknownPath, endpoint
from llamactl.console.live.page import state
from llamactl.console.requests_api import RequestViewSet
from llamactl.console.system_api import ServerViewSet, healthz

urlpatterns: list[URLPattern | URLResolver] = [
    path("", read_only(RedirectView.as_view(pattern_name="admin:index"))),
    # In place of the admin's own pages, and reversed by their names.
    path("admin/login/", login),
    path("admin/password_change/", admin.site.admin_view(change_password, cacheable=True)),
    # A GET without a WebSocket's handshake, which llamactl.asgi answers.
    path("admin/stream", state, name="live-state"),
    path("admin/", admin.site.urls),
    path("healthz", read_only(healthz), name="healthz"),
    path("", include("llamactl.openapi.views")),
    path("api/v1/", include("instances.api.urls")),
    path("api/v1/", include("keys.api.urls")),
    path("api/v1/", include("nodes.api.urls")),
    *endpoint("api/v1/requests", RequestViewSet, {"get": "in_flight"}, name="requests"),
    *endpoint("api/v1/requests/<str:id>", RequestViewSet, {"delete": "cancel"}, name="request"),
    *endpoint("api/v1/version", ServerViewSet, {"get": "version"}, name="version"),
    *endpoint("api/v1/config", ServerViewSet, {"get": "config"}, name="config"),
    re_path(r"^api/v1(?:/|\Z)", UnknownPath.as_view(schema=None)),
]

handler400 = "llamactl.api.error_pages.bad_request"
handler403 = "llamactl.api.error_pages.permission_denied"
handler404 = "llamactl.api.error_pages.not_found"
handler500 = "llamactl.api.error_pages.server_error"
