"""Report of usage: JSON in pages, or CSV as a stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from keys.api import usage_schema as schema
from keys.api.streamed_pages import StreamedPages
from keys.api.usage_params import cursor_of, format_of, limit_of, position_of, report_of
from keys.usage.models import SUMS
from keys.usage.report import Position, Report, Row, key_names, page
from llamactl.api.views import ApiViewSet, refuse_unknown_parameters

PARAMETERS = ("group_by", "from", "to", "format", "limit", "after")
CSV = "text/csv; charset=utf-8"
PIECE_ROWS = 2_000
"""Of one piece of the CSV: about 200 KB."""


class UsageViewSet(ApiViewSet):
    @schema.show_usage
    def usage(self, request: Request) -> HttpResponseBase:
        query = request.query_params
        refuse_unknown_parameters(query, PARAMETERS)
        report, limit = report_of(query), limit_of(query)
        position = position_of(query, report)
        if format_of(query) == "csv":
            headers = {"Content-Disposition": 'attachment; filename="usage.csv"'}
            return CsvPieces(report, position).response(request, CSV, headers)
        rows, last = page(report, after=position, limit=limit)
        names = key_names()
        return Response(
            {
                "from": report.start,
                "to": report.end,
                "rows": [_named(row, names) for row in rows],
                "next": cursor_of(last),
            }
        )


def _named(row: Row, names: Mapping[int, str]) -> Row:
    """Add the key's name, null for a revoked key; management and anonymous have no id."""
    if "key_id" not in row:
        return row
    key_id = row["key_id"]
    return {**row, "key": names.get(key_id), "key_id": key_id if key_id > 0 else None}


class CsvPieces(StreamedPages):
    """Body of a CSV response: one page of the report after the other."""

    def __init__(self, report: Report, position: Position | None) -> None:
        super().__init__()
        self._report = report
        self._position = position
        self._names: dict[int, str] | None = None

    def read_piece(self) -> bytes:
        is_first = self._names is None
        if self._names is None:
            self._names = key_names()
        rows, last = page(self._report, after=self._position, limit=PIECE_ROWS)
        self._position, self.is_at_end = last, last is None
        columns = self._report.columns
        named = (("key",) if "key_id" in columns else ()) + columns
        text = io.StringIO()
        writer = csv.DictWriter(text, [*named, *SUMS], lineterminator="\r\n")
        if is_first:
            writer.writeheader()
        writer.writerows(_named(row, self._names) for row in rows)
        return text.getvalue().encode()
