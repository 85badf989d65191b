"""What the backend programs say of themselves, and what a pasted command line means."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from instances.api import schema
from instances.api.serializers import command_of
from instances.backends import Backend, backend_for
from instances.program_info import ask_program
from llamactl.api.views import ApiViewSet, body_of
from llamactl.config import current
from llamactl.openapi import PLAIN_TEXT


class BackendProgramViewSet(ApiViewSet):
    """Asks the program that an instance of llama.cpp would be started with."""

    @schema.show_help
    def help(self, request: Request) -> HttpResponse:
        return _text(ask_program("llama_cpp", "--help", current()))

    @schema.show_version
    def version(self, request: Request) -> HttpResponse:
        return _text(ask_program("llama_cpp", "--version", current()))

    @schema.list_devices
    def devices(self, request: Request) -> HttpResponse:
        return _text(ask_program("llama_cpp", "--list-devices", current()))


class ParseCommandViewSet(ApiViewSet):
    backend_type: ClassVar[str] = ""

    def create(self, request: Request) -> Response:
        parsed = backend_for(self.backend_type).parse_command(command_of(body_of(request)))
        document: dict[str, object] = {
            "backend_type": self.backend_type,
            "backend_options": parsed.backend_options,
        }
        if parsed.environment:
            document["environment"] = parsed.environment
        return Response(document)


def parse_command_view(backend: Backend) -> type[ParseCommandViewSet]:
    """The view for one backend, which the schema has examples of its own for."""
    described = extend_schema_view(create=schema.parse_command(backend))
    view: type[ParseCommandViewSet] = type(
        "ParseCommandViewSet", (ParseCommandViewSet,), {"backend_type": backend.type}
    )
    return described(view)


def _text(text: str) -> HttpResponse:
    return HttpResponse(text, content_type=f"{PLAIN_TEXT}; charset=utf-8")
