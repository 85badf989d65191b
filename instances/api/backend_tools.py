"""Endpoints of the backends: a program's help, version and devices; parsing a command line."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from instances.api import schema
from instances.api.serializers import command_of
from instances.backends.base import Backend
from instances.backends.pasted import parse_pasted
from instances.backends.registry import backend_for
from llamactl.api.views import ApiViewSet, request_document
from llamactl.config import current
from llamactl.openapi import PLAIN_TEXT
from nodes.agent import agent_for


class BackendProgramViewSet(ApiViewSet):
    """Output of the llama.cpp program of the local node."""

    @schema.show_help
    def help(self, request: Request) -> HttpResponse:
        return _llama_cpp_output("--help")

    @schema.show_version
    def version(self, request: Request) -> HttpResponse:
        return _llama_cpp_output("--version")

    @schema.list_devices
    def devices(self, request: Request) -> HttpResponse:
        return _llama_cpp_output("--list-devices")


class ParseCommandViewSet(ApiViewSet):
    """Instance options of a pasted command line."""

    backend_type: ClassVar[str] = ""

    def create(self, request: Request) -> Response:
        command = command_of(request_document(request))
        pasted = parse_pasted(command, backend_for(self.backend_type))
        return Response(pasted.to_document())


def parse_command_view(backend: Backend) -> type[ParseCommandViewSet]:
    """Make the view of one backend, with the backend's own examples in the schema."""
    described = extend_schema_view(create=schema.parse_command(backend))
    view: type[ParseCommandViewSet] = type(
        "ParseCommandViewSet", (ParseCommandViewSet,), {"backend_type": backend.type}
    )
    return described(view)


def _llama_cpp_output(flag: str) -> HttpResponse:
    text = agent_for(current().local_node).program_output("llama_cpp", flag)
    return HttpResponse(text, content_type=f"{PLAIN_TEXT}; charset=utf-8")
