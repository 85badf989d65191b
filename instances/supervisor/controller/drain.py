"""May an instance that shuts down be signalled, or does somebody still wait for its answer?"""

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

BROKER_PATIENCE_SECONDS = 2.0
"""Web processes look into the database once a second, so by then none sends new requests."""


class Left(IntEnum):
    """What is still carried to an instance, or may be."""

    NOTHING = 0
    LOOKS = 1
    """Nothing that uses it, as far as is known: health checks, a web process that lags behind."""
    USES = 2


class RemainingTraffic:
    """Asks again and again whether one instance is drained, until it is.

    The web processes' reports say so. Where there are none (the broker is away, or has just come
    back, or no web process runs) nobody can say what is being carried; then the kernel is asked:
    an instance without an open connection to its port has nobody to answer to. So it is where a web
    process that carried something reports no more: it was killed, or only stands still.
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
        """The web processes that carried something, or might, when they were last heard of."""

    def left(self) -> Left:
        """What is left now. May block for some seconds."""
        try:
            reports = read_reports(client())
        except redis.RedisError as error:
            return self._left_without_broker(error)
        self._unreachable_since = None
        if not reports:
            return self._left_by_connections()
        is_any_silent = self._is_any_silent(reports)
        if is_drained(reports, self._name, self._revision):
            return self._left_by_connections() if is_any_silent else Left.NOTHING
        return Left.USES if Traffic(reports).in_use(self._name) else Left.LOOKS

    def _is_any_silent(self, reports: list[WebReport]) -> bool:
        """Whether a web process that was not done with the instance reports no more."""
        silent = self._carriers - {report.web_id for report in reports}
        busy = (each for each in reports if not is_drained([each], self._name, self._revision))
        self._carriers = silent | {report.web_id for report in busy}
        return bool(silent)

    def _left_by_connections(self) -> Left:
        return Left.USES if has_connections(self._port) else Left.NOTHING

    def _left_without_broker(self, error: redis.RedisError) -> Left:
        now = self._clock()
        if self._unreachable_since is None:
            self._unreachable_since = now
            logger.warning(
                "no traffic reports, looking at open connections instead: %s",
                error,
                extra={"instance": self._name},
            )
        if now - self._unreachable_since < BROKER_PATIENCE_SECONDS:
            return Left.USES
        return self._left_by_connections()
