"""Paths of the operations on instances and of the backends' tools."""

from __future__ import annotations

from django.urls import URLPattern

from instances.api.backend_tools import BackendProgramViewSet, parse_command_view
from instances.api.logs import LogViewSet
from instances.api.views import InstanceViewSet
from instances.backends.registry import BACKENDS
from llamactl.api.views import endpoint

urlpatterns: list[URLPattern] = [
    *endpoint("instances", InstanceViewSet, {"get": "list"}, name="instances"),
    *endpoint(
        "instances/<str:name>",
        InstanceViewSet,
        {"get": "retrieve", "post": "create", "put": "update", "delete": "destroy"},
        name="instance",
    ),
]
for operation in ("start", "stop", "restart"):
    urlpatterns += endpoint(
        f"instances/<str:name>/{operation}",
        InstanceViewSet,
        {"post": operation},
        name=f"instance-{operation}",
    )
urlpatterns += endpoint(
    "instances/<str:name>/logs", LogViewSet, {"get": "logs"}, name="instance-logs"
)
for operation in ("help", "version", "devices"):
    urlpatterns += endpoint(
        f"backends/llama-cpp/{operation}",
        BackendProgramViewSet,
        {"get": operation},
        name=f"llama-cpp-{operation}",
    )
for backend in BACKENDS.values():
    urlpatterns += endpoint(
        f"backends/{backend.config_name}/parse-command",
        parse_command_view(backend),
        {"post": "create"},
        name=f"{backend.config_name}-parse-command",
    )
