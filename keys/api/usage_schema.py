"""OpenAPI description of the usage report."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from keys.usage.report import GROUPS, PAGE_ROWS
from llamactl.core.errors import InvalidParameter
from llamactl.openapi import DocumentedResponse, operation

_ROW: dict[str, Any] = {
    "start": 1765152000,
    "key": "chat app",
    "key_id": 1,
    "instance": "gemma",
    "requests": 12,
    "errors": 1,
    "prompt_tokens": 4120,
    "cached_tokens": 3600,
    "completion_tokens": 840,
    "estimated_tokens": 31,
    "drafted_tokens": 0,
    "accepted_tokens": 0,
    "compute_seconds": 21.5,
    "waiting_seconds": 3.25,
}


class UsageRowSerializer(serializers.Serializer[Any]):
    """Sums of one group."""

    start = serializers.IntegerField(
        required=False, help_text="Unix seconds of the hour or day (UTC); with `hour` or `day`."
    )
    key = serializers.CharField(
        required=False,
        allow_null=True,
        help_text="Name of the key; `management` for a management key, `anonymous` for none, null"
        " for a revoked key. With `key`.",
    )
    key_id = serializers.IntegerField(required=False, allow_null=True)
    instance = serializers.CharField(
        required=False,
        allow_blank=True,
        help_text="Empty for requests that were refused before their instance was known.",
    )
    requests = serializers.IntegerField()
    errors = serializers.IntegerField(  # type: ignore[assignment] # a column, no DRF errors
        help_text="Responses of a status from 400, and broken ones."
    )
    prompt_tokens = serializers.IntegerField(help_text="Including the cached tokens.")
    cached_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    estimated_tokens = serializers.IntegerField(
        help_text="The part of the prompt and completion tokens that was counted by the events of"
        " a response, because no figures of the backend came."
    )
    drafted_tokens = serializers.IntegerField(help_text="Proposed by speculative decoding.")
    accepted_tokens = serializers.IntegerField(help_text="Drafted tokens that were accepted.")
    compute_seconds = serializers.FloatField(help_text="From asking the backend to the end.")
    waiting_seconds = serializers.FloatField(help_text="Waiting for the instance.")


class UsageReportSerializer(serializers.Serializer[Any]):
    """A page of the report."""

    # ``from`` is a keyword of Python.
    def get_fields(self) -> dict[str, Any]:
        return {
            "from": serializers.IntegerField(help_text="Unix seconds, at a full hour."),
            "to": serializers.IntegerField(help_text="Unix seconds, at a full hour; excluded."),
            "rows": UsageRowSerializer(many=True),
            "next": serializers.CharField(
                allow_null=True, help_text="`after` of the next page; null on the last page."
            ),
        }


def _parameter(name: str, description: str, schema: dict[str, Any]) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description)


_TIME = {"type": "string", "pattern": r"^[0-9TZ:.+-]*$"}
show_usage = operation(
    "Usage",
    "Sum up requests and tokens",
    name="show_usage",
    description="Sums of each key and instance; a request counts in the hour of its end, and is in"
    " the report after two seconds. Hours are kept for 31 days, days for `usage.retention_days`.",
    parameters=[
        _parameter(
            "group_by",
            f"Comma-separated, of {', '.join(GROUPS)}; empty for one sum. Default: key.",
            {"type": "string", "enum": [*GROUPS, "key,instance,day", ""]},
        ),
        _parameter("from", "Unix seconds, or a date (ISO 8601). Default: 30 days back.", _TIME),
        _parameter("to", "Unix seconds, or a date (ISO 8601). Default: now.", _TIME),
        _parameter("format", "Default: json.", {"type": "string", "enum": ["json", "csv"]}),
        _parameter(
            "limit",
            f"Rows of a page of JSON. Default: {PAGE_ROWS}.",
            {"type": "integer", "minimum": 1, "maximum": PAGE_ROWS},
        ),
        _parameter("after", "The `next` of the page before.", {"type": "string"}),
    ],
    answer=UsageReportSerializer,
    answers={
        "by key, instance and day": {
            "from": 1765152000,
            "to": 1765238400,
            "rows": [_ROW],
            "next": None,
        }
    },
    others=[
        DocumentedResponse(
            {"type": "string"},
            {"by key": "key,key_id,requests\r\nchat app,1,12\r\n"},
            media_type="text/csv",
        )
    ],
    errors=[
        InvalidParameter("Invalid group_by parameter: 'user' is none of key, instance, hour, day")
    ],
)
