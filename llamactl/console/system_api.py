"""System endpoints: version, configuration and health."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.api.views import ApiViewSet
from llamactl.config import current
from llamactl.config.explain import redacted
from llamactl.openapi import PLAIN_TEXT, operation
from llamactl.version import VERSION

_TAG = "System"
COMMIT = BUILD_TIME = "unknown"
"""The Go program compiles them in, and shows "unknown" in a build without them."""

_VERSION = f"Version: {{}}\nCommit: {COMMIT}\nBuild Time: {BUILD_TIME}\n"
_CONFIG = {
    "server": {"host": "127.0.0.1", "port": 8080, "enable_swagger": True},
    "instances": {"port_range": [8000, 9000], "max_instances": -1, "default_max_restarts": 3},
    "auth": {"require_management_auth": True, "management_keys": []},
    "local_node": "main",
}


class ServerViewSet(ApiViewSet):
    @operation(
        _TAG,
        "The version of llamactl",
        name="show_version",
        answer=str,
        answers={"version": _VERSION.format(VERSION)},
        media_type=PLAIN_TEXT,
        uses_database=False,
    )
    def version(self, request: Request) -> HttpResponse:
        return HttpResponse(_VERSION.format(VERSION), content_type=f"{PLAIN_TEXT}; charset=utf-8")

    @operation(
        _TAG,
        "The configuration in force, without its secrets",
        name="show_config",
        description="The keys are those of `llamactl.yaml`.",
        answer=OpenApiTypes.OBJECT,
        answers={"excerpt": _CONFIG},
        uses_database=False,
    )
    def config(self, request: Request) -> Response:
        document = redacted(current(), version=VERSION, commit_hash=COMMIT, build_time=BUILD_TIME)
        return Response(document)


def healthz(request: HttpRequest) -> HttpResponse:
    """Health of this web process; needs no key, no database and no other service."""
    return JsonResponse({"status": "ok"})
