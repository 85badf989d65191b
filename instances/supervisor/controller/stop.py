"""In which order, and how patiently, is a process made to end?

Requests in flight are waited for; then SIGINT, SIGTERM and SIGKILL follow each other, each if the
one before was not heeded in time. Nothing here blocks: ``step`` does what is due.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from instances.desired_state import is_by_supervisor
from instances.states import DesiredState
from instances.supervisor.context import NEVER, OffThread
from instances.supervisor.controller.drain import Left, RemainingTraffic
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row

DRAIN_POLL_SECONDS = 0.1
KILL_AGAIN_SECONDS = 5.0
WORKER_ENDS = ("supervisor:shutdown", "the worker ends")
QUICK_SECONDS = 1.0
"""What is left of each patience where the worker itself is told to end at once."""


def cause_of_stop(row: Row, why_it_gives_way: str) -> tuple[str, str]:
    """Cause and reason of a stop that the row asks for, as the history has them."""
    if row.desired_state is DesiredState.STOPPED and is_by_supervisor(row.requested_by):
        return row.requested_by, why_it_gives_way
    is_restart = row.desired_state is DesiredState.RUNNING
    cause = "supervisor:restart" if is_restart else "supervisor:stop"
    return cause, f"asked by {row.requested_by}" if row.requested_by else ""


class Drain:
    """Waiting for the requests in flight, for so long and no longer; or patiently.

    Until ``begin`` (the database may be away) it waits without asking: as long as the web processes
    can't know that the instance shuts down, nobody can say that it is drained. A patient one waits
    for as long as the instance is in use: nobody has asked for this stop but the supervisor itself.
    """

    def __init__(self, off_thread: OffThread, *, until: float, is_patient: bool = False) -> None:
        self.is_patient = is_patient
        self.due = NEVER if is_patient else until
        self._off_thread = off_thread
        self._until = until
        self._watch: RemainingTraffic | None = None
        self._is_asking = False
        self._left = Left.USES

    def begin(self, watch: RemainingTraffic) -> None:
        """Start asking: from now on the web processes can know that it shuts down."""
        self._watch = watch
        self.due = 0.0

    def limit(self, until: float) -> None:
        """Somebody wants it to end: be patient no more."""
        self.is_patient = False
        self._until = until
        self.due = min(self.due, until)

    def step(self, now: float) -> None:
        if self._watch is None or self._is_asking or now < self.due:
            return
        self._is_asking = True
        self.due = NEVER if self.is_patient else self._until
        self._off_thread(self._watch.left, lambda left: self._answer(now, left), on_error=Left.USES)

    def is_over(self, now: float) -> bool:
        if self._left is Left.NOTHING:
            return True
        return now >= self._until and not (self.is_patient and self._left is Left.USES)

    def _answer(self, asked_at: float, left: Left) -> None:
        self._is_asking = False
        self._left = left
        self.due = 0.0 if left is Left.NOTHING else asked_at + DRAIN_POLL_SECONDS
        if not self.is_patient:
            self.due = min(self.due, self._until)


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

    @property
    def is_patient(self) -> bool:
        """Whether it waits for requests, for as long as they take."""
        return self._drain is not None and self._drain.is_patient

    def limit_drain(self, until: float) -> None:
        """Wait no longer than that for requests."""
        if self._drain is not None and self._drain.is_patient:
            self._drain.limit(until)
            self.due = min(self.due, self._drain.due)

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
