"""OpenAPI description of the list of the last requests."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from keys.usage.models import RequestRecord
from llamactl.core.errors import InvalidParameter
from llamactl.openapi import DocumentedResponse, operation

_ROW: dict[str, Any] = {
    "id": "5f0c1d6c5f4b4c0f9d2b6a7e8c9d0e1f",
    "client_request_id": None,
    "ended_at": 1765217762.125,
    "key": "chat app",
    "key_id": 1,
    "instance": "gemma",
    "path": "/v1/chat/completions",
    "status": 200,
    "outcome": "answered",
    "prompt_tokens": 29,
    "cached_tokens": 24,
    "completion_tokens": 84,
    "drafted_tokens": 0,
    "accepted_tokens": 0,
    "is_estimated": False,
    "queue_seconds": 0.0,
    "load_seconds": 0.0,
    "first_byte_seconds": 0.041,
    "total_seconds": 1.9,
    "request_bytes": 113,
    "response_bytes": 15320,
}


class RequestRecordSerializer(serializers.ModelSerializer[RequestRecord]):
    """One request that has ended."""

    id = serializers.CharField(source="request_id", help_text="`X-Request-Id` of the response.")
    client_request_id = serializers.CharField(allow_null=True)
    key = serializers.CharField(
        allow_null=True,
        help_text="Name of the key; `management` for a management key, `anonymous` for none, null"
        " for a revoked key.",
    )
    key_id = serializers.IntegerField(allow_null=True)
    instance = serializers.CharField(  # type: ignore[assignment] # a column, no row of DRF's
        allow_blank=True
    )
    path = serializers.CharField(allow_blank=True, help_text="Path at the backend.")
    status = serializers.IntegerField(help_text="0: the client disconnected before any.")
    outcome = serializers.ChoiceField(
        [
            "answered",
            "refused",
            "client_disconnected",
            "backend_failed",
            "failed",
            "cancelled",
            "pending",
        ]
    )

    class Meta:
        model = RequestRecord
        fields = tuple(_ROW)


class RequestLogSerializer(serializers.Serializer[Any]):
    """A page of the list."""

    rows = RequestRecordSerializer(many=True)
    next = serializers.CharField(
        allow_null=True, help_text="`after` of the next page; null on the last page."
    )


def _parameter(name: str, description: str, schema: dict[str, Any]) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description)


list_last_requests = operation(
    "Usage",
    "List the last requests",
    name="list_last_requests",
    description="Requests that have ended, without their contents, the newest first; a request is"
    " in the list after two seconds. `requests.keep` of them are kept, at most 1,000 of each two"
    " seconds and web process.",
    parameters=[
        _parameter("instance", "Name of the instance.", {"type": "string", "maxLength": 200}),
        _parameter("key", "Id of the key, `management` or `anonymous`.", {"type": "string"}),
        _parameter("status", "Status.", {"type": "integer", "minimum": 0, "maximum": 599}),
        _parameter(
            "slower_than", "Seconds of the whole request.", {"type": "number", "minimum": 0}
        ),
        _parameter(
            "errors",
            "`true`: only statuses from 400 and responses that broke off.",
            {"type": "string", "enum": ["true", "false"]},
        ),
        _parameter(
            "format",
            "`jsonl`: all matching requests, one JSON document a line. Default: json.",
            {"type": "string", "enum": ["json", "jsonl"]},
        ),
        _parameter(
            "limit",
            "Rows of a page of JSON. Default: 100.",
            {"type": "integer", "minimum": 1, "maximum": 1000},
        ),
        _parameter("after", "The `next` of the page before.", {"type": "string"}),
    ],
    answer=RequestLogSerializer,
    answers={"one request": {"rows": [_ROW], "next": None}},
    others=[
        DocumentedResponse({"type": "string"}, {"nothing": ""}, media_type="application/x-ndjson")
    ],
    errors=[InvalidParameter("Invalid status parameter: 'x' is no whole number from 0 to 599")],
)
