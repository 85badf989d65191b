"""Paths of the nodes' operations."""

from __future__ import annotations

from django.urls import URLPattern

from llamactl.api.views import endpoint
from nodes.api.views import NodeViewSet

urlpatterns: list[URLPattern] = [
    *endpoint("nodes", NodeViewSet, {"get": "directory"}, name="nodes"),
    *endpoint("nodes/<str:name>", NodeViewSet, {"get": "retrieve"}, name="node"),
]
