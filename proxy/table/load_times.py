"""When is it worth asking again for an instance that is loading?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from proxy.table.table import Target

UNKNOWN_SECONDS = 30.0
"""What is told where no start has been measured yet."""
MOST_SECONDS = 600.0


def load_seconds(started_at: datetime | None, ready_at: datetime | None) -> float | None:
    """How long the start took that these tell of; ``None`` while it is under way, or before any."""
    if started_at is None or ready_at is None or ready_at < started_at:
        return None
    return (ready_at - started_at).total_seconds()


def with_load_times(
    targets: Mapping[str, Target], earlier: Mapping[str, Target]
) -> dict[str, Target]:
    """The targets, where the time is not known with the one that was known of it earlier.

    The database tells of the start that is under way, which is when the last one's is asked for.
    """
    known = {target.id: target.load_seconds for target in earlier.values()}
    return {
        name: target
        if target.load_seconds is not None or known.get(target.id) is None
        else replace(target, load_seconds=known[target.id])
        for name, target in targets.items()
    }


def retry_after(load_seconds: float | None, waited: float) -> float:
    """Seconds until it should be ready, for who has waited for it this long.

    A start that takes longer than the last one did is not nearly over in each moment after: from
    there on a client is told a half of what it has waited, so that it asks ever less often.
    """
    if load_seconds is None:
        return UNKNOWN_SECONDS
    left = load_seconds - waited
    return min(MOST_SECONDS, max(left, waited / 2, 1.0))
