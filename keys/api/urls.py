"""Paths of the operations on inference keys and their usage."""

from __future__ import annotations

from django.urls import URLPattern

from keys.api.request_log import RequestLogViewSet
from keys.api.usage import UsageViewSet
from keys.api.views import KeyViewSet
from llamactl.api.views import endpoint

urlpatterns: list[URLPattern] = [
    *endpoint("auth/keys", KeyViewSet, {"get": "list", "post": "create"}, name="keys"),
    *endpoint(
        "auth/keys/<str:id>",
        KeyViewSet,
        {"get": "retrieve", "patch": "partial_update", "delete": "destroy"},
        name="key",
    ),
    *endpoint(
        "auth/keys/<str:id>/permissions",
        KeyViewSet,
        {"get": "permissions"},
        name="key-permissions",
    ),
    *endpoint("auth/keys/<str:id>/rotate", KeyViewSet, {"post": "rotate"}, name="key-rotate"),
    *endpoint("request-log", RequestLogViewSet, {"get": "requests"}, name="request-log"),
    *endpoint("usage", UsageViewSet, {"get": "usage"}, name="usage"),
]
