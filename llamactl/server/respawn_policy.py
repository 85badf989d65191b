"""When is a process that died started again?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RespawnPolicy:
    """Wait 1, 2, 4, 8 seconds, and give up at the fifth death within a minute."""

    first_delay_seconds: float = 1.0
    most_deaths: int = 5
    window_seconds: float = 60.0

    def delay_after(self, deaths: Sequence[float], now: float) -> float | None:
        """Seconds to wait after the newest of ``deaths`` (clock of ``now``); None: give up."""
        recent = sum(1 for at in deaths if now - at < self.window_seconds)
        if recent >= self.most_deaths:
            return None
        return self.first_delay_seconds * 2.0 ** max(recent - 1, 0)
