"""Unix times, which the API uses for every time."""

from __future__ import annotations

from datetime import UTC, datetime

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

LAST_UNIX_SECOND = 253_402_300_799
"""The end of the year 9999, the largest datetime."""


def from_unix(seconds: int) -> datetime:
    """Convert seconds to a datetime. Raises ValueError outside of 0 … ``LAST_UNIX_SECOND``."""
    if not 0 <= seconds <= LAST_UNIX_SECOND:
        raise ValueError("not between the years 1970 and 9999")
    return datetime.fromtimestamp(seconds, UTC)


@extend_schema_field(OpenApiTypes.INT64)
class UnixSecondsField(serializers.Field[datetime, int, int, datetime]):
    """A read-only time in whole unix seconds."""

    def to_representation(self, value: datetime) -> int:
        return int(value.timestamp())
