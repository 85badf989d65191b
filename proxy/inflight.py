"""In-flight exchanges of this web process by instance, and the report on them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from instances.scheduling.traffic_report import WebReport
from proxy.exchange import Exchange

Waiters = Mapping[str, dict[str, tuple[int, float]]]


class InFlight:
    """Counts in memory; other processes see them through ``report()``."""

    def __init__(self) -> None:
        self.web_id = secrets.token_hex(8)
        self._exchanges: dict[str, set[Exchange]] = {}
        self._last_used: dict[str, float] = {}

    def begin(self, exchange: Exchange) -> None:
        """Count an exchange with its instance until ``end``.

        Call this in the same step of the event loop in which the target was read from the table:
        a drain relies on counting every request that saw the older table.
        """
        exchanges = self._exchanges.get(exchange.instance)
        if exchanges is None:
            exchanges = self._exchanges[exchange.instance] = set()
        exchanges.add(exchange)

    def end(self, exchange: Exchange) -> None:
        name = exchange.instance
        exchanges = self._exchanges[name]
        exchanges.discard(exchange)
        if not exchanges:
            del self._exchanges[name]
        if exchange.is_use:
            self._last_used[name] = time.time()

    def count(self, name: str) -> int:
        return len(self._exchanges.get(name, ()))

    def report(
        self, revision: int, waiting: Waiters | None = None, not_evicting: Sequence[str] = ()
    ) -> WebReport:
        """The counts by instance, and the last moment at which bytes came for a user."""
        now = time.time()
        looking: dict[str, int] = {}
        for name, exchanges in self._exchanges.items():
            for exchange in exchanges:
                if not exchange.is_use:
                    looking[name] = looking.get(name, 0) + 1
                elif _has_progressed(exchange):
                    self._last_used[name] = now
        return WebReport(
            web_id=self.web_id,
            revision=revision,
            in_flight={name: len(exchanges) for name, exchanges in self._exchanges.items()},
            last_used=dict(self._last_used),
            looking=looking,
            waiting=dict(waiting or {}),
            not_evicting=list(not_evicting),
        )


def _has_progressed(exchange: Exchange) -> bool:
    """Whether bytes have come for the client since the last report."""
    exchange.count_bytes()
    before, exchange.reported_bytes = exchange.reported_bytes, exchange.bytes_to_client
    return exchange.bytes_to_client > before
