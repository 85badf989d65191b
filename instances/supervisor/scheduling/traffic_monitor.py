"""Traffic of the web processes, as this node's supervisor has read it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis

from instances.scheduling.traffic_report import Traffic, WebReport, read_reports
from instances.supervisor.context import LONG_AGO, NO_DEADLINE, OffThread
from llamactl.core.events import client

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3.0
"""Age up to which reports count as fresh. A web process reports four times a second."""


class TrafficMonitor:
    """Reads the traffic reports off the supervisor's thread.

    ``fresh`` is for decisions that can't be undone. ``latest`` is for decisions that must go on:
    where each read takes longer than FRESH_SECONDS (a starved machine, or docker and health checks
    that occupy all threads), each result counts once, in the turn of the loop in which it comes.
    """

    def __init__(self, off_thread: OffThread, clock: Callable[[], float]) -> None:
        self.read_began_at = LONG_AGO
        """Time at which the latest read began; the reports are no older."""
        self.used: dict[str, float] = {}
        """Instance → time of the last use, on ``clock``."""
        self.last_used: dict[str, float] = {}
        """Instance → unix time of the last use."""
        self._off_thread = off_thread
        self._clock = clock
        self._latest: Traffic | None = None
        self._is_new = False
        """Whether the result came in this turn of the supervisor's loop."""
        self._is_reading = False
        self._began_at = LONG_AGO

    def due(self, interval: float) -> float:
        return NO_DEADLINE if self._is_reading else self._began_at + interval

    def step(self, now: float, interval: float) -> None:
        """Start a read if one is due. Called in each turn of the loop, after all decisions."""
        self._is_new = False
        if now < self.due(interval):
            return
        self._is_reading = True
        self._began_at = now
        self._off_thread(_read, self._take_answer, on_error=None)

    def fresh(self) -> Traffic | None:
        """Return the traffic of a moment ago; ``None`` without fresh reports."""
        return self._latest if self._clock() - self.read_began_at <= FRESH_SECONDS else None

    def latest(self) -> Traffic | None:
        """Return the fresh traffic, or a result of this turn, however long its read took."""
        return self._latest if self._is_new else self.fresh()

    def _take_answer(self, answer: tuple[list[WebReport], float] | None) -> None:
        self._is_reading = False
        self._is_new = True
        if answer is None:
            self._latest = None
            return
        reports, unix_now = answer
        self.read_began_at = self._began_at
        clock_now = self._clock()
        self._latest = traffic = Traffic(reports, unix_now=unix_now, clock_now=clock_now)
        for name, at in traffic.last_used().items():
            self.last_used[name] = max(at, self.last_used.get(name, 0.0))
            self.used[name] = max(traffic.last_byte(name), self.used.get(name, LONG_AGO))
        for name in traffic.names_in_use():
            # If its web process dies, the last report expires with it.
            self.last_used[name] = max(unix_now, self.last_used.get(name, 0.0))
            self.used[name] = clock_now


def _read() -> tuple[list[WebReport], float] | None:
    """Read the reports, with the unix time of the read; ``None`` while the broker is away."""
    try:
        return read_reports(client()), time.time()
    except redis.RedisError as error:
        logger.debug("no traffic reports: %s", error)
        return None
