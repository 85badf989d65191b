"""The operations on instances."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from instances import lifecycle
from instances.api import schema
from instances.api.parameters import wait_of
from instances.api.serializers import InstanceSerializer, whole_options
from instances.models import Instance
from instances.readiness import wait_until_ready
from llamactl.config import current
from llamactl.endpoints import ApiViewSet, body_of

CAUSE = "api"


class InstanceViewSet(ApiViewSet):
    """Instances are found by name; a name that can't be one is refused before it is looked for."""

    @schema.list_instances
    def list(self, request: Request) -> Response:
        return Response(InstanceSerializer(Instance.objects.all(), many=True).data)

    @schema.create_instance
    def create(self, request: Request, name: str) -> Response:
        instance = lifecycle.create(name, body_of(request) or {}, cause=CAUSE)
        return Response(InstanceSerializer(instance).data, status=201)

    @schema.show_instance
    def retrieve(self, request: Request, name: str) -> Response:
        return Response(InstanceSerializer(lifecycle.get(name)).data)

    @schema.replace_options
    def update(self, request: Request, name: str) -> Response:
        instance = lifecycle.update(name, whole_options(body_of(request)), cause=CAUSE)
        return Response(InstanceSerializer(instance).data)

    @schema.delete_instance
    def destroy(self, request: Request, name: str) -> Response:
        lifecycle.delete(name, cause=CAUSE)
        return Response(status=204)

    @schema.start_instance
    def start(self, request: Request, name: str) -> Response:
        wait_seconds = wait_of(request.query_params)
        return _started(lifecycle.request_start(name, cause=CAUSE), wait_seconds)

    @schema.stop_instance
    def stop(self, request: Request, name: str) -> Response:
        instance = lifecycle.request_stop(name, cause=CAUSE)
        return Response(InstanceSerializer(instance).data)

    @schema.restart_instance
    def restart(self, request: Request, name: str) -> Response:
        wait_seconds = wait_of(request.query_params)
        return _started(lifecycle.request_restart(name, cause=CAUSE), wait_seconds)


def _started(instance: Instance, wait_seconds: float | None) -> Response:
    """The instance that was asked to start: at once, or when it is ready or has failed."""
    if wait_seconds is not None:
        timeout_seconds = min(wait_seconds, current().instances.on_demand_start_timeout)
        instance = wait_until_ready(instance.name, instance.generation, timeout_seconds)
    return Response(InstanceSerializer(instance).data)
