"""Respawn policy: delay before the next start of a process that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RespawnPolicy:
    """Exponential backoff of 1, 2, 4, 8 seconds; no respawn after the fifth failure in a minute."""

    first_delay_seconds: float = 1.0
    max_failures: int = 5
    window_seconds: float = 60.0

    def delay_after(self, failures: Sequence[float], now: float) -> float | None:
        """Seconds to wait after the newest of ``failures`` (clock of ``now``); None: no respawn."""
        recent = sum(1 for at in failures if now - at < self.window_seconds)
        if recent >= self.max_failures:
            return None
        return self.first_delay_seconds * 2.0 ** max(recent - 1, 0)
