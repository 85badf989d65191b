"""In which order, and how patiently, is a process made to end?

Requests in flight are waited for; then SIGINT, SIGTERM and SIGKILL follow each other, each if the
one before was not heeded in time. Nothing here blocks: ``step`` does what is due.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from instances.supervisor.draining import TrafficWatch
from instances.supervisor.process import Process
from instances.supervisor.surroundings import OffThread

DRAIN_POLL_SECONDS = 0.1
KILL_AGAIN_SECONDS = 5.0
QUICK_SECONDS = 1.0
"""What is left of each patience where the worker itself is told to end at once."""


class Drain:
    """Waiting for the requests in flight, for so long and no longer.

    Until ``begin`` (the database may be away) it waits without asking: as long as the web processes
    can't know that the instance shuts down, nobody can say that it is drained.
    """

    def __init__(self, off_thread: OffThread, *, until: float) -> None:
        self.due = until
        self._off_thread = off_thread
        self._until = until
        self._watch: TrafficWatch | None = None
        self._is_asking = False
        self._is_drained = False

    def begin(self, watch: TrafficWatch) -> None:
        """Start asking: from now on the web processes can know that it shuts down."""
        self._watch = watch
        self.due = 0.0

    def step(self, now: float) -> None:
        if self._watch is None or self._is_asking or now < self.due:
            return
        self._is_asking = True
        self.due = self._until
        self._off_thread(
            self._watch.is_drained, lambda drained: self._answer(now, drained), on_error=False
        )

    def is_over(self, now: float) -> bool:
        return self._is_drained or now >= self._until

    def _answer(self, asked_at: float, is_drained: bool) -> None:
        self._is_asking = False
        self._is_drained = is_drained
        self.due = 0.0 if is_drained else min(asked_at + DRAIN_POLL_SECONDS, self._until)


class StopSequence:
    """One process on its way out."""

    def __init__(
        self,
        process: Process,
        *,
        drain: Drain | None,
        patience_seconds: float,
        now: float,
        on_signal: Callable[[signal.Signals], None],
    ) -> None:
        self.due = now
        self._process = process
        self._drain = drain
        self._patience = patience_seconds
        self._on_signal = on_signal
        self._signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]

    def step(self, now: float) -> None:
        """Do what is due, and set ``due`` to when there is something to do again."""
        if self._drain is not None:
            self._drain.step(now)
            if not self._drain.is_over(now):
                self.due = self._drain.due
                return
            self._drain = None
            self.due = now
        if now >= self.due:
            self._signal_next(now)

    def hurry(self, now: float) -> None:
        """The worker is told to end at once: no more draining, and little patience."""
        self._patience = min(self._patience, QUICK_SECONDS)
        self.due = now if self._drain is not None else min(self.due, now + QUICK_SECONDS)
        self._drain = None

    def _signal_next(self, now: float) -> None:
        number = self._signals[0]
        if number is signal.SIGKILL:
            # It stays in the list: what sits in an uninterruptible call dies when that returns.
            self.due = now + KILL_AGAIN_SECONDS
        else:
            self._signals.pop(0)
            self.due = now + self._patience
        self._on_signal(number)
        self._process.signal_group(number)
