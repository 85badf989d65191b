"""Liveness of a process that runs: whether it still answers.

A starved machine, or one that wakes from suspend, is no hang. So only probes are counted that had
their full time on a machine that also ran this process in time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol

INTERVAL_SECONDS = 10.0
"""Interval of the probes, and how long a process has for an answer."""
MAX_UNANSWERED = 3
"""Unanswered probes in a row after which a process hangs."""
LATE_SECONDS = 2.0
"""Delay of our own tick beyond which an unanswered probe does not count."""


class LivenessProbe(Protocol):
    """A question to a process. No method blocks."""

    def begin(self) -> None:
        """Ask, and forget the answers to earlier questions."""

    def has_answered(self) -> bool:
        """Whether an answer has come since ``begin``."""

    def close(self) -> None: ...


class HeartbeatPipe:
    """The reading end of a child's heartbeat (``llamactl.core.parent_heartbeat``)."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)

    def begin(self) -> None:
        self.has_answered()

    def has_answered(self) -> bool:
        is_beating = False
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                is_beating = True
        return is_beating

    def close_writer(self) -> None:
        """Close this process's copy of the writing end, once the child has its own."""
        os.close(self.writer)

    def close(self) -> None:
        os.close(self._reader)


class Liveness:
    """The count of a process's unanswered probes. Times are monotonic."""

    def __init__(self, probe: LivenessProbe, now: float) -> None:
        self.due = now + INTERVAL_SECONDS
        self._probe = probe
        self._unanswered = 0
        probe.begin()

    def is_hung(self, now: float) -> bool:
        """Evaluate the probe if its time is over, and begin the next."""
        if now >= self.due:
            if self._probe.has_answered():
                self._unanswered = 0
            elif now - self.due <= LATE_SECONDS:
                self._unanswered += 1
            self.due = now + INTERVAL_SECONDS
            self._probe.begin()
        return self._unanswered >= MAX_UNANSWERED
