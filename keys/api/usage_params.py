"""Query parameters of the usage report."""

from __future__ import annotations

import base64
import binascii
import json
import time
from datetime import UTC, datetime

from django.http import QueryDict

from keys.usage.models import MAX_INSTANCE_NAME
from keys.usage.recorder import HOUR_SECONDS
from keys.usage.report import GROUPS, PAGE_ROWS, PERIODS, Position, Report
from keys.usage.writing import DAY_SECONDS, HOURS_KEPT_SECONDS
from llamactl.core.errors import InvalidParameter
from llamactl.core.unix_time import LAST_UNIX_SECOND

DEFAULT_DAYS = 30
FORMATS = ("json", "csv")
_LARGEST_ID = 2**63 - 1


def report_of(query: QueryDict, *, now: float | None = None) -> Report:
    """Read ``group_by``, ``from`` and ``to``. Raises InvalidParameter.

    The range is widened to full hours, and to full days (UTC) where hours are no longer kept.
    """
    moment = int(time.time() if now is None else now)
    end = _time_of(query, "to", moment)
    start = _time_of(query, "from", max(0, end - DEFAULT_DAYS * DAY_SECONDS))
    if start > end:
        raise InvalidParameter(f"Invalid from parameter: {start} is later than to ({end})")
    groups = _groups_of(query)
    return Report(
        groups=groups,
        start=start // _step(start, moment) * _step(start, moment),
        end=-(-end // _step(end, moment)) * _step(end, moment),
    )


def limit_of(query: QueryDict) -> int:
    """Read ``limit``, the number of rows of a page. Raises InvalidParameter."""
    text = query.get("limit", str(PAGE_ROWS))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
    if not 1 <= limit <= PAGE_ROWS:
        raise InvalidParameter(
            f"Invalid limit parameter: {text[:80]!r} is no whole number from 1 to {PAGE_ROWS}"
        )
    return limit


def format_of(query: QueryDict) -> str:
    """Read ``format``. Raises InvalidParameter."""
    text = query.get("format", FORMATS[0])
    if text not in FORMATS:
        raise InvalidParameter(
            f"Invalid format parameter: {text[:80]!r} is none of {', '.join(FORMATS)}"
        )
    return text


def cursor_of(position: Position | None) -> str | None:
    """Return the ``after`` parameter of the next page."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def position_of(query: QueryDict, report: Report) -> Position | None:
    """Read ``after``, the ``next`` of the page before. Raises InvalidParameter."""
    text = query.get("after", "")
    if not text:
        return None
    refusal = InvalidParameter(
        "Invalid after parameter: it must be the next of a page with the same group_by"
    )
    if len(text) > 500 or not text.isascii():
        raise refusal
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise refusal from None
    if not isinstance(values, list) or len(values) != len(report.columns):
        raise refusal
    for column, value in zip(report.columns, values, strict=True):
        if column == "instance":
            is_valid = isinstance(value, str) and len(value) <= MAX_INSTANCE_NAME
            is_valid = is_valid and "\0" not in value
        else:
            is_valid = type(value) is int and -_LARGEST_ID <= value <= _LARGEST_ID
        if not is_valid:
            raise refusal
    return tuple(values)


def _groups_of(query: QueryDict) -> frozenset[str]:
    text = query.get("group_by", "key")
    groups = [name for name in text.split(",") if name] if text else []
    for name in groups:
        if name not in GROUPS:
            raise InvalidParameter(
                f"Invalid group_by parameter: {name[:80]!r} is none of {', '.join(GROUPS)}"
            )
    if PERIODS.keys() <= set(groups):
        raise InvalidParameter("Invalid group_by parameter: give either hour or day, got both")
    return frozenset(groups)


def _step(moment: int, now: int) -> int:
    return DAY_SECONDS if moment < now - HOURS_KEPT_SECONDS + DAY_SECONDS else HOUR_SECONDS


def _time_of(query: QueryDict, name: str, default: int) -> int:
    """A time as unix seconds, or as a date or a time in ISO 8601 (UTC without an offset)."""
    text = query.get(name, "")
    if not text:
        return default
    try:
        if text.isascii() and text.isdigit() and len(text) <= 12:
            seconds = int(text)
        else:
            found = datetime.fromisoformat(text)
            seconds = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        seconds = -1
    if not 0 <= seconds <= LAST_UNIX_SECOND:
        raise InvalidParameter(
            f"Invalid {name} parameter: {text[:80]!r} is neither unix seconds nor a date such as"
            " 2026-01-31 or 2026-01-31T12:00:00Z"
        )
    return seconds
