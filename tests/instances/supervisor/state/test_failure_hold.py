"""The length of the hold after failed starts."""

from __future__ import annotations

import pytest

from instances.supervisor.state.failure_hold import failure_hold


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (8, 300), (5000, 300)]
)
def test_hold_doubles_with_each_failed_start_up_to_five_minutes(
    failures: int, seconds: float
) -> None:
    assert failure_hold(failures, has_been_ready=False) == seconds


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0), (2, 5), (3, 10), (5000, 300)])
def test_first_crash_of_a_ready_backend_holds_nothing(failures: int, seconds: float) -> None:
    assert failure_hold(failures, has_been_ready=True) == seconds
