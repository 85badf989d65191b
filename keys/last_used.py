"""When keys were last used, written in batches: a request itself never writes."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.db import transaction

from keys.models import InferenceKey


class KeyUsage:
    """Remembers the last use of each key until somebody takes and writes it."""

    def __init__(self) -> None:
        self._last_used: dict[int, float] = {}

    def note(self, key_id: int) -> None:
        self._last_used[key_id] = time.time()

    def take(self) -> dict[int, float]:
        """What is unwritten (key id → unix seconds), forgotten here from now on."""
        taken, self._last_used = self._last_used, {}
        return taken

    def give_back(self, taken: dict[int, float]) -> None:
        """Remember again what could not be written, unless a later use is known by now."""
        self._last_used = {**taken, **self._last_used}


def write_last_used(last_used: dict[int, float]) -> None:
    """Store the batch in one short transaction; keys deleted meanwhile are passed over."""
    with transaction.atomic():
        # In one order everywhere: two web processes would otherwise lock each other's rows.
        for key_id, seconds in sorted(last_used.items()):
            used_at = datetime.fromtimestamp(seconds, tz=UTC)
            InferenceKey.objects.filter(pk=key_id).update(last_used_at=used_at)
