"""Last use of each key, written in batches: a request never writes to the database."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.db import transaction

from keys.models import InferenceKey


class KeyUsage:
    """Last uses of keys that are not written to the database yet."""

    def __init__(self) -> None:
        self._last_used: dict[int, float] = {}

    def record(self, key_id: int) -> None:
        self._last_used[key_id] = time.time()

    def take(self) -> dict[int, float]:
        """Remove and return the unwritten uses: key id → unix seconds."""
        taken, self._last_used = self._last_used, {}
        return taken

    def restore(self, taken: dict[int, float]) -> None:
        """Add uses whose write failed, except where a later use was recorded meanwhile."""
        self._last_used = {**taken, **self._last_used}


def write_last_used(last_used: dict[int, float]) -> None:
    """Write a batch in one short transaction; deleted keys are skipped."""
    with transaction.atomic():
        # Sorted: in different orders, two web processes would deadlock on each other's rows.
        for key_id, seconds in sorted(last_used.items()):
            used_at = datetime.fromtimestamp(seconds, tz=UTC)
            InferenceKey.objects.filter(pk=key_id).update(last_used_at=used_at)
