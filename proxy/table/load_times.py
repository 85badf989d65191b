"""Load times of instances, and the ``Retry-After`` of a request for a loading instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from proxy.table.table import Target

UNKNOWN_SECONDS = 30.0
"""The answer as long as no start has been measured."""
MAX_SECONDS = 600.0


def load_seconds(started_at: datetime | None, ready_at: datetime | None) -> float | None:
    """The duration of the last start; ``None`` while it is under way, or before the first."""
    if started_at is None or ready_at is None or ready_at < started_at:
        return None
    return (ready_at - started_at).total_seconds()


def with_load_times(
    targets: Mapping[str, Target], earlier: Mapping[str, Target]
) -> dict[str, Target]:
    """The targets, with the load time of the earlier table where their own is unknown.

    During a start the database has no load time, and that is when the last start's is needed.
    """
    known = {target.id: target.load_seconds for target in earlier.values()}
    return {
        name: target
        if target.load_seconds is not None or known.get(target.id) is None
        else replace(target, load_seconds=known[target.id])
        for name, target in targets.items()
    }


def retry_after(load_seconds: float | None, waited: float) -> float:
    """Seconds until the instance should be ready, for a request that has waited this long.

    A start that takes longer than the last start is not about to end at every moment after that:
    the answer is then half of the time waited, so that a client asks less and less often.
    """
    if load_seconds is None:
        return UNKNOWN_SECONDS
    left = load_seconds - waited
    return min(MAX_SECONDS, max(left, waited / 2, 1.0))
