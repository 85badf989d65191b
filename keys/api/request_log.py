"""List of the last requests: JSON in pages, or JSON lines as a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db.models import Q
from django.forms import model_to_dict
from django.http import QueryDict
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from keys.api import request_log_schema as schema
from keys.api.streamed_pages import StreamedPages
from keys.usage.models import ANONYMOUS_HOLDER, MANAGEMENT_HOLDER, RequestRecord
from keys.usage.report import key_names
from llamactl.api.views import ApiViewSet, refuse_unknown_parameters
from llamactl.core.errors import InvalidParameter

PARAMETERS = ("instance", "key", "status", "slower_than", "errors", "format", "limit", "after")
FORMATS = ("json", "jsonl")
MAX_ROWS = 1000
DEFAULT_ROWS = 100
LINES = "application/x-ndjson"
_HOLDERS = {"management": MANAGEMENT_HOLDER, "anonymous": ANONYMOUS_HOLDER}
_FAILED = ("backend_failed", "failed")
_LARGEST = 2**63 - 1


class RequestLogViewSet(ApiViewSet):
    @schema.list_last_requests
    def requests(self, request: Request) -> HttpResponseBase:
        query = request.query_params
        refuse_unknown_parameters(query, PARAMETERS)
        condition = condition_of(query)
        limit = _number(query, "limit", DEFAULT_ROWS, most=MAX_ROWS)
        before = _number(query, "after", _LARGEST, most=_LARGEST)
        if _one_of(query, "format", FORMATS) == "jsonl":
            headers = {"Content-Disposition": 'attachment; filename="requests.jsonl"'}
            return JsonLines(condition, before).response(request, LINES, headers)
        records = page(condition, before, limit + 1)
        names = key_names()
        following = str(records[limit - 1].pk) if len(records) > limit else None
        rows = [document_of(each, names) for each in records[:limit]]
        return Response({"rows": rows, "next": following})


def page(condition: Q, before: int, limit: int) -> list[RequestRecord]:
    """Return records older than the one with the id ``before``, the newest first."""
    found = RequestRecord.objects.filter(condition, pk__lt=before)
    return list(found.order_by("-pk")[:limit])


def document_of(record: RequestRecord, names: Mapping[int, str]) -> dict[str, Any]:
    document = model_to_dict(record)
    document["id"] = document.pop("request_id")
    document["client_request_id"] = document["client_request_id"] or None
    document["ended_at"] = round(record.ended_at, 3)
    for name, value in document.items():
        if name.endswith("_seconds") and value is not None:
            document[name] = round(value, 6)
    document["key"] = names.get(record.key_id)
    document["key_id"] = record.key_id if record.key_id > 0 else None
    return document


def condition_of(query: QueryDict) -> Q:
    """Read the filters. Raises InvalidParameter."""
    condition = Q()
    if "instance" in query:
        condition &= Q(instance=_text(query, "instance"))
    if "key" in query:
        key = query.get("key", "")
        number = _HOLDERS.get(key)
        if number is None:
            number = _number(query, "key", 0, most=_LARGEST, also=", management or anonymous")
        condition &= Q(key_id=number)
    if "status" in query:
        condition &= Q(status=_number(query, "status", 0, least=0, most=599))
    if "slower_than" in query:
        condition &= Q(total_seconds__gt=_seconds(query, "slower_than"))
    if _one_of(query, "errors", ("false", "true")) == "true":
        condition &= Q(status__gte=400) | Q(outcome__in=_FAILED)
    return condition


def _text(query: QueryDict, name: str) -> str:
    text = query.get(name, "")
    if "\0" in text or len(text) > 200:
        raise InvalidParameter(f"Invalid {name} parameter: {text[:80]!r} is no name")
    return text


def _one_of(query: QueryDict, name: str, known: tuple[str, ...]) -> str:
    text = query.get(name, known[0])
    if text not in known:
        raise InvalidParameter(
            f"Invalid {name} parameter: {text[:80]!r} is none of {', '.join(known)}"
        )
    return text


def _number(
    query: QueryDict, name: str, default: int, *, most: int, least: int = 1, also: str = ""
) -> int:
    text = query.get(name, "")
    if not text and name not in query:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else -1
    if not least <= number <= most:
        raise InvalidParameter(
            f"Invalid {name} parameter: {text[:80]!r} is no whole number from {least} to"
            f" {most}{also}"
        )
    return number


def _seconds(query: QueryDict, name: str) -> float:
    text = query.get(name, "")
    try:
        seconds = float(text) if text.isascii() and len(text) <= 40 else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise InvalidParameter(f"Invalid {name} parameter: {text[:80]!r} is no number of seconds")
    return seconds


class JsonLines(StreamedPages):
    """Body of an export: one JSON document a line, the newest request first."""

    def __init__(self, condition: Q, before: int) -> None:
        super().__init__()
        self._condition = condition
        self._before = before
        self._names: dict[int, str] = {}

    def read_piece(self) -> bytes:
        self._names = self._names or key_names()
        records = page(self._condition, self._before, MAX_ROWS)
        self.is_at_end = len(records) < MAX_ROWS
        if records:
            self._before = records[-1].pk
        lines = (json.dumps(document_of(each, self._names)) for each in records)
        return "".join(f"{line}\n" for line in lines).encode()
