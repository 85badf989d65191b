"""What runs here, and how it is configured: version, config and health."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.config import current
from llamactl.config.explain import redacted
from llamactl.endpoints import ApiViewSet
from llamactl.openapi import PLAIN_TEXT, operation
from llamactl.version import VERSION

_TAG = "System"
COMMIT = BUILD_TIME = "unknown"
"""The Go program has them compiled in, and says this where they were not."""


class ServerViewSet(ApiViewSet):
    @operation(_TAG, "The version of llamactl", answer=str, media_type=PLAIN_TEXT)
    def version(self, request: Request) -> HttpResponse:
        text = f"Version: {VERSION}\nCommit: {COMMIT}\nBuild Time: {BUILD_TIME}\n"
        return HttpResponse(text, content_type=f"{PLAIN_TEXT}; charset=utf-8")

    @operation(_TAG, "The configuration in force, without its secrets", answer=OpenApiTypes.OBJECT)
    def config(self, request: Request) -> Response:
        document = redacted(current(), version=VERSION, commit_hash=COMMIT, build_time=BUILD_TIME)
        return Response(document)


def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this web process answers: no key, no database, nothing that may hang."""
    return JsonResponse({"status": "ok"})
