"""Keep-alive of clients that wait: an early response for each request that waits too long.

One look at all requests twice a second, instead of a timer for each: nearly all requests have their
response before, and would pay for a timer that never fires.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from llamactl.core.turns import Turns
from proxy.early_response import EarlyResponse, WaitingRequest
from proxy.registry import Registry
from proxy.table.live import LiveTable

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
EVERY_SECONDS = 10.0
"""Between two signs of life; proxies in front give up after 60 s or more."""


class KeepAlive:
    """Begins early responses."""

    def __init__(
        self,
        registry: Registry[WaitingRequest],
        live: LiveTable,
        turns: Turns,
        *,
        after_seconds: float,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._registry = registry
        self._live = live
        self._turns = turns
        self._after_seconds = after_seconds
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Check the requests, without end."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look(perf_counter())
            except Exception:
                # A loop that has ended would leave every later request without signs of life.
                logger.exception("waiting requests could not be checked")

    def look(self, now: float) -> None:
        """Begin an early response for each request that has waited too long at ``now``."""
        for request in self._registry.requests():
            exchange = request.exchange
            if exchange.status or exchange.early is not None:
                continue
            if now - exchange.received_at >= self._after_seconds:
                exchange.early = EarlyResponse(
                    request, self._live, self._turns, every_seconds=self._every_seconds
                )
