"""How many requests this web process carries to each instance, and when it last carried one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from instances.traffic import WebReport


class InFlight:
    """Counts in memory; ``report()`` is what the other processes get to see of them."""

    def __init__(self) -> None:
        self.web_id = secrets.token_hex(8)
        self._counts: dict[str, int] = {}
        self._last_used: dict[str, float] = {}

    @contextmanager
    def carrying(self, name: str) -> Iterator[None]:
        """Count one request to the instance for as long as the block lasts.

        Enter it in the same step of the event loop in which the target was read from the table:
        a drain relies on every request that saw the older table being counted.
        """
        self._counts[name] = self._counts.get(name, 0) + 1
        try:
            yield
        finally:
            left = self._counts[name] - 1
            if left:
                self._counts[name] = left
            else:
                del self._counts[name]
            self._last_used[name] = time.time()

    def count(self, name: str) -> int:
        return self._counts.get(name, 0)

    def report(self, revision: int) -> WebReport:
        return WebReport(
            web_id=self.web_id,
            revision=revision,
            in_flight=dict(self._counts),
            last_used=dict(self._last_used),
        )
