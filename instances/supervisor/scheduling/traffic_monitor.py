"""What do the web processes carry now, as far as this node's supervisor has read it?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis

from instances.scheduling.traffic_report import Traffic, WebReport, read_reports
from instances.supervisor.context import NEVER, OffThread
from llamactl.core.events import client

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3.0
"""A web process reports four times a second; what was asked for longer ago says nothing of now."""


class TrafficMonitor:
    """Reads the reports off the supervisor's thread, as often as it is told to.

    Two questions may be asked of it. ``now`` is for what can't be undone. ``news`` is for what has
    to go on: where an answer takes longer than it is fresh (on a starved machine; behind docker or
    health checks that occupy all threads) the next one will too, so each counts once, as it comes.
    """

    def __init__(self, off_thread: OffThread, clock: Callable[[], float]) -> None:
        self.asked_at = -NEVER
        """When the latest reports were asked for: they are no older."""
        self.used: dict[str, float] = {}
        """Instance → when (on ``clock``) it was last seen in use."""
        self.last_used: dict[str, float] = {}
        """The same as unix time, as the web processes say it."""
        self._off_thread = off_thread
        self._clock = clock
        self._latest: Traffic | None = None
        self._is_news = False
        """Whether it came in this turn of the supervisor's loop."""
        self._is_asking = False
        self._began_at = -NEVER

    def due(self, interval: float) -> float:
        return NEVER if self._is_asking else self._began_at + interval

    def step(self, now: float, interval: float) -> None:
        """Ask, if it is time. Once in each turn of the loop, after all that wants to know."""
        self._is_news = False
        if now < self.due(interval):
            return
        self._is_asking = True
        self._began_at = now
        self._off_thread(_read, self._take, on_error=None)

    def now(self) -> Traffic | None:
        """What was read a moment ago; ``None``: nothing was, so nobody can say what is carried."""
        return self._latest if self._clock() - self.asked_at <= FRESH_SECONDS else None

    def news(self) -> Traffic | None:
        """The same, or what has only just come, however long it was on its way."""
        return self._latest if self._is_news else self.now()

    def _take(self, answer: tuple[list[WebReport], float] | None) -> None:
        self._is_asking = False
        self._is_news = True
        if answer is None:
            self._latest = None
            return
        reports, unix_now = answer
        self.asked_at = self._began_at
        clock_now = self._clock()
        self._latest = traffic = Traffic(reports, unix_now=unix_now, clock_now=clock_now)
        for name, at in traffic.last_used().items():
            self.last_used[name] = max(at, self.last_used.get(name, 0.0))
            self.used[name] = max(traffic.last_byte(name), self.used.get(name, -NEVER))
        for name in traffic.names_in_use():
            # Should its web process die, its last report will be gone.
            self.last_used[name] = max(unix_now, self.last_used.get(name, 0.0))
            self.used[name] = clock_now


def _read() -> tuple[list[WebReport], float] | None:
    """The reports and when they were read; ``None`` while the broker is away."""
    try:
        return read_reports(client()), time.time()
    except redis.RedisError as error:
        logger.debug("no traffic reports: %s", error)
        return None
