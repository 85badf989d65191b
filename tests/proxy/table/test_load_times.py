from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from proxy.table.load_times import (
    MAX_SECONDS,
    UNKNOWN_SECONDS,
    load_seconds,
    retry_after,
    with_load_times,
)
from tests.proxy.conftest import make_target

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("started_at", "ready_at", "seconds"),
    [
        (None, None, None),
        (NOW, None, None),
        (NOW, NOW + timedelta(seconds=42), 42.0),
        # A clock that was set back must not make it negative.
        (NOW, NOW - timedelta(seconds=1), None),
    ],
)
def test_load_time_is_from_the_start_to_ready(
    started_at: datetime | None, ready_at: datetime | None, seconds: float | None
) -> None:
    assert load_seconds(started_at, ready_at) == seconds


def test_time_of_the_last_start_is_known_during_the_next() -> None:
    def seconds(now: float | None, before: float | None, **changes: int) -> float | None:
        targets = {"demo": make_target("", load_seconds=now)}
        earlier = {"old-name": make_target("", load_seconds=before, **changes)}
        return with_load_times(targets, earlier)["demo"].load_seconds

    assert seconds(None, 42.0) == 42.0
    assert seconds(7.0, 42.0) == 7.0
    assert seconds(None, None) is None
    # Another instance, of the same name or not.
    assert seconds(None, 42.0, id=7) is None


@pytest.mark.parametrize(
    ("last", "waited", "told"),
    [
        (None, 120.0, UNKNOWN_SECONDS),
        (180.0, 120.0, 60.0),
        (180.0, 179.8, 89.9),
        (180.0, 300.0, 150.0),
        (2.0, 0.0, 2.0),
        (0.4, 0.0, 1.0),
        (7200.0, 120.0, MAX_SECONDS),
    ],
)
def test_retry_after_is_the_rest_of_the_last_load_time(
    last: float | None, waited: float, told: float
) -> None:
    assert retry_after(last, waited) == pytest.approx(told)
