"""Warning of a condition that lasts: logged once at its beginning, and once at its end.

A broker that is away for a night would otherwise fill the log with one line a second.
"""

from __future__ import annotations

import logging
import threading
import time


class RepeatedWarning:
    """A failure that may repeat. Any thread may call ``failed`` and ``succeeded``."""

    def __init__(self, logger: logging.Logger, subject: str) -> None:
        """``subject``: the beginning of both log lines, such as "change events"."""
        self._logger = logger
        self._subject = subject
        self._lock = threading.Lock()
        self._failures = 0
        self._since = 0.0

    def failed(self, text: str, *arguments: object, exc_info: bool = False) -> None:
        """Log the first failure in a row, and count the others."""
        with self._lock:
            self._failures += 1
            if self._failures > 1:
                return
            self._since = time.monotonic()
        self._logger.warning(f"%s: {text}", self._subject, *arguments, exc_info=exc_info)  # noqa: G004

    def succeeded(self) -> None:
        """Log the end of the failures, if there were any, with their number."""
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, 0
            seconds = time.monotonic() - self._since
        if failures:
            self._logger.warning(
                "%s: works again after %.0f s, %d %s",
                self._subject,
                seconds,
                failures,
                "failure" if failures == 1 else "failures",
            )
