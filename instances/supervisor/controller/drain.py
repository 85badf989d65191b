"""Requests in flight to an instance that shuts down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import IntEnum

import redis

from instances.ports import has_connections
from instances.scheduling.traffic_report import Traffic, WebReport, is_drained, read_reports
from llamactl.core.events import client

logger = logging.getLogger(__name__)

BROKER_TIMEOUT_SECONDS = 2.0
"""Time after which open connections count without a broker. Web processes poll the database once a
second, so by then none of them sends new requests."""


class InFlight(IntEnum):
    """The traffic to an instance that is known, or possible."""

    NOTHING = 0
    STATUS_REQUESTS = 1
    """No use of the model is known: health checks, or a web process that lags behind."""
    REQUESTS = 2


class RemainingTraffic:
    """The traffic to one instance until it is drained.

    The web processes' reports say what is in flight. Without reports (the broker is away or has
    just come back, or no web process runs) the kernel decides: an instance without an open
    connection to its port answers no request. The kernel decides, too, when a web process that had
    requests in flight reports no more: it was killed, or it is frozen.
    """

    def __init__(
        self,
        name: str,
        port: int,
        revision: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._port = port
        self._revision = revision
        self._clock = clock
        self._unreachable_since: float | None = None
        self._carriers: set[str] = set()
        """Web processes that were not drained in their last report."""

    def read(self) -> InFlight:
        """Return the present traffic. May block for some seconds."""
        try:
            reports = read_reports(client())
        except redis.RedisError as error:
            return self._without_broker(error)
        self._unreachable_since = None
        if not reports:
            return self._by_connections()
        is_any_silent = self._is_any_silent(reports)
        if is_drained(reports, self._name, self._revision):
            return self._by_connections() if is_any_silent else InFlight.NOTHING
        is_used = Traffic(reports).in_use(self._name)
        return InFlight.REQUESTS if is_used else InFlight.STATUS_REQUESTS

    def _is_any_silent(self, reports: list[WebReport]) -> bool:
        """Whether a web process that was not drained has stopped reporting."""
        silent = self._carriers - {report.web_id for report in reports}
        busy = (each for each in reports if not is_drained([each], self._name, self._revision))
        self._carriers = silent | {report.web_id for report in busy}
        return bool(silent)

    def _by_connections(self) -> InFlight:
        return InFlight.REQUESTS if has_connections(self._port) else InFlight.NOTHING

    def _without_broker(self, error: redis.RedisError) -> InFlight:
        now = self._clock()
        if self._unreachable_since is None:
            self._unreachable_since = now
            logger.warning(
                "no traffic reports, so open connections are counted instead: %s",
                error,
                extra={"instance": self._name},
            )
        if now - self._unreachable_since < BROKER_TIMEOUT_SECONDS:
            return InFlight.REQUESTS
        return self._by_connections()
