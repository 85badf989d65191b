"""Operations on instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from instances import dry_run, lifecycle
from instances.api import schema
from instances.api.query_params import flag_of, wait_of
from instances.api.serializers import InstanceSerializer, options_of
from instances.models import Instance
from instances.wait_ready import wait_until_ready
from instances.wait_stopped import (
    DEFAULT_WAIT_SECONDS,
    MAX_WAIT_SECONDS,
    delete_when_stopped,
)
from llamactl.api.views import ApiViewSet, request_document
from llamactl.config import current

CAUSE = "api"


class InstanceViewSet(ApiViewSet):
    """Operations on instances, by name; an invalid name is refused before the database is read."""

    query_parameters: ClassVar = {
        "create": ("dry_run", "strict"),
        "update": ("dry_run", "strict"),
        "start": ("wait",),
        "restart": ("wait",),
        "destroy": ("wait",),
    }

    @schema.list_instances
    def list(self, request: Request) -> Response:
        return Response(InstanceSerializer(Instance.objects.all(), many=True).data)

    @schema.create_instance
    def create(self, request: Request, name: str) -> Response:
        document = options_of(request_document(request))
        is_dry_run = flag_of(request.query_params, "dry_run")
        is_strict = flag_of(request.query_params, "strict")
        if is_dry_run:
            return Response(dry_run.dry_run_create(name, document).to_document())
        if is_strict:
            dry_run.refuse_create_with_errors(name, document)
        instance = lifecycle.create(name, document, cause=CAUSE)
        return Response(_saved(instance, document), status=201)

    @schema.show_instance
    def retrieve(self, request: Request, name: str) -> Response:
        return Response(InstanceSerializer(lifecycle.get(name)).data)

    @schema.replace_options
    def update(self, request: Request, name: str) -> Response:
        document = options_of(request_document(request))
        is_dry_run = flag_of(request.query_params, "dry_run")
        is_strict = flag_of(request.query_params, "strict")
        if is_dry_run:
            return Response(dry_run.dry_run_update(name, document).to_document())
        if is_strict:
            dry_run.refuse_update_with_errors(name, document)
        update = lifecycle.update(name, document, cause=CAUSE)
        effect = {"changed": update.is_changed, "restarted": update.is_restarted}
        return Response({**_saved(update.instance, document), **effect})

    @schema.delete_instance
    def destroy(self, request: Request, name: str) -> Response:
        wait_seconds = wait_of(request.query_params)
        wait_seconds = DEFAULT_WAIT_SECONDS if wait_seconds is None else wait_seconds
        delete_when_stopped(name, min(wait_seconds, MAX_WAIT_SECONDS), cause=CAUSE)
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


def _saved(instance: Instance, document: Mapping[str, object]) -> dict[str, object]:
    """Return the instance, with ``warnings`` only if there are any, as in the seed."""
    saved: dict[str, object] = dict(InstanceSerializer(instance).data)
    if findings := dry_run.findings_of(instance, document):
        saved["warnings"] = [finding.to_document() for finding in findings]
    return saved


def _started(instance: Instance, wait_seconds: float | None) -> Response:
    """Respond with the instance at once, or when it is ready or has failed."""
    if wait_seconds is not None:
        timeout_seconds = min(wait_seconds, current().instances.on_demand_start_timeout)
        instance = wait_until_ready(instance.name, instance.generation, timeout_seconds)
    return Response(InstanceSerializer(instance).data)
