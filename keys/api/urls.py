"""Paths of the inference keys' operations."""

from __future__ import annotations

from django.urls import URLPattern

from keys.api.views import KeyViewSet
from llamactl.api.views import endpoint

urlpatterns: list[URLPattern] = [
    *endpoint("auth/keys", KeyViewSet, {"get": "list", "post": "create"}, name="keys"),
    *endpoint(
        "auth/keys/<str:id>", KeyViewSet, {"get": "retrieve", "delete": "destroy"}, name="key"
    ),
    *endpoint(
        "auth/keys/<str:id>/permissions",
        KeyViewSet,
        {"get": "permissions"},
        name="key-permissions",
    ),
]
