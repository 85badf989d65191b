"""Drain and signals that end one process.

Requests in flight are waited for. Then SIGINT, SIGTERM and SIGKILL follow each other, each after a
grace period. ``step`` does the due work, and never blocks.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from instances.supervisor.context import NO_DEADLINE, OffThread
from instances.supervisor.controller.drain import InFlight, RemainingTraffic
from instances.supervisor.process.pidfd import Process

DRAIN_POLL_SECONDS = 0.1
KILL_AGAIN_SECONDS = 5.0
SHORT_GRACE_SECONDS = 1.0
"""Longest grace period while the worker has to end at once."""


class Drain:
    """The wait for requests in flight, until a deadline; or unbounded.

    Before ``begin`` the drain waits without reading reports: as long as the database does not say
    that the instance shuts down (it may be away), the web processes can't know, and their reports
    prove nothing. An unbounded drain waits for as long as the instance is in use: only the
    supervisor itself has decided on this stop.
    """

    def __init__(self, off_thread: OffThread, *, until: float, is_unbounded: bool = False) -> None:
        self.is_unbounded = is_unbounded
        self.due = NO_DEADLINE if is_unbounded else until
        self._off_thread = off_thread
        self._until = until
        self._traffic: RemainingTraffic | None = None
        self._is_reading = False
        self._in_flight = InFlight.REQUESTS

    def begin(self, traffic: RemainingTraffic) -> None:
        """Start to read reports: from now on the web processes can know of the shutdown."""
        self._traffic = traffic
        self.due = 0.0

    def limit(self, until: float) -> None:
        """Give an unbounded drain a deadline."""
        self.is_unbounded = False
        self._until = until
        self.due = min(self.due, until)

    def step(self, now: float) -> None:
        if self._traffic is None or self._is_reading or now < self.due:
            return
        self._is_reading = True
        self.due = NO_DEADLINE if self.is_unbounded else self._until
        self._off_thread(
            self._traffic.read,
            lambda in_flight: self._take_answer(now, in_flight),
            on_error=InFlight.REQUESTS,
        )

    def is_over(self, now: float) -> bool:
        if self._in_flight is InFlight.NOTHING:
            return True
        return now >= self._until and not (
            self.is_unbounded and self._in_flight is InFlight.REQUESTS
        )

    def _take_answer(self, asked_at: float, in_flight: InFlight) -> None:
        self._is_reading = False
        self._in_flight = in_flight
        self.due = 0.0 if in_flight is InFlight.NOTHING else asked_at + DRAIN_POLL_SECONDS
        if not self.is_unbounded:
            self.due = min(self.due, self._until)


class StopSequence:
    """Drain and signals of one process."""

    def __init__(
        self,
        process: Process,
        *,
        drain: Drain | None,
        grace_seconds: float,
        now: float,
        on_signal: Callable[[signal.Signals], None],
    ) -> None:
        self.due = now
        self._process = process
        self._drain = drain
        self._grace_seconds = grace_seconds
        self._on_signal = on_signal
        self._signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]

    @property
    def has_unbounded_drain(self) -> bool:
        """Whether the sequence waits for requests in flight, for as long as they take."""
        return self._drain is not None and self._drain.is_unbounded

    def limit_drain(self, until: float) -> None:
        """Give an unbounded drain a deadline."""
        if self._drain is not None and self._drain.is_unbounded:
            self._drain.limit(until)
            self.due = min(self.due, self._drain.due)

    def end_quickly(self, now: float) -> None:
        """Skip the drain and shorten the grace periods."""
        self._grace_seconds = min(self._grace_seconds, SHORT_GRACE_SECONDS)
        self.due = now if self._drain is not None else min(self.due, now + SHORT_GRACE_SECONDS)
        self._drain = None

    def kill_at_once(self) -> None:
        """Skip the signals that a process may act on."""
        self._signals = [signal.SIGKILL]

    def step(self, now: float) -> None:
        """Do the due work, and set ``due`` to the next time."""
        if self._drain is not None:
            self._drain.step(now)
            if not self._drain.is_over(now):
                self.due = self._drain.due
                return
            self._drain = None
            self.due = now
        if now >= self.due:
            self._signal_next(now)

    def _signal_next(self, now: float) -> None:
        number = self._signals[0]
        if number is signal.SIGKILL:
            # SIGKILL is repeated: a process in an uninterruptible call dies when the call returns.
            self.due = now + KILL_AGAIN_SECONDS
        else:
            self._signals.pop(0)
            self.due = now + self._grace_seconds
        self._on_signal(number)
        self._process.signal_group(number)
