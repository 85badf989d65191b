"""Log lines of a condition that lasts: one at its beginning, one a minute, and one at its end.

A broker that is away for a night would otherwise fill the log with one line a second, perhaps onto
the very disk that is full.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

REPETITION_SECONDS = 60.0


class Repetition:
    """Count of a repeating log line, which is passed once a minute."""

    def __init__(self) -> None:
        self._passed_at = 0.0
        self._suppressed: int | None = None
        """The lines since the last one that was passed; ``None`` before the first line."""

    def passed(self, text: str, now: float) -> str | None:
        """Return the line with the number of its repetitions; ``None`` to suppress the line.

        ``now``: seconds of any clock, the same for all calls.
        """
        suppressed = self._suppressed
        if suppressed is not None and now - self._passed_at < REPETITION_SECONDS:
            self._suppressed = suppressed + 1
            return None
        self._passed_at, self._suppressed = now, 0
        return f"{text.rstrip()} ({suppressed} times more)" if suppressed else text


class RepeatedWarning:
    """A failure that may repeat. Any thread may call ``failed`` and ``succeeded``."""

    def __init__(
        self,
        logger: logging.Logger,
        subject: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``subject``: the beginning of all log lines, such as "change events"."""
        self._logger = logger
        self._subject = subject
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._since = 0.0
        self._repetition = Repetition()

    def failed(self, text: str, *arguments: object, exc_info: bool = False) -> None:
        """Log the first failure in a row, and then one a minute."""
        with self._lock:
            now = self._clock()
            if not self._failures:
                self._since, self._repetition = now, Repetition()
            self._failures += 1
            line = self._repetition.passed(text % arguments, now)
        if line is not None:
            self._logger.warning("%s: %s", self._subject, line, exc_info=exc_info)

    def succeeded(self) -> None:
        """Log the end of the failures, if there were any, with their number."""
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, 0
            seconds = self._clock() - self._since
        if failures:
            self._logger.warning(
                "%s: works again after %.0f s, %d %s",
                self._subject,
                seconds,
                failures,
                "failure" if failures == 1 else "failures",
            )
