"""Background sender: messages to the broker leave by a thread of their own.

A request, a drain or the supervisor must not wait for a broker that hangs, which costs seconds for
each message. All messages are hints that the receivers can do without: each also reads the
database once a second. So a message may be dropped, and equal messages that wait are one message.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Hashable

from llamactl.core.repeated_warning import RepeatedWarning

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""After a failure nothing is sent for this long. The receivers' own polls take as long."""

FLUSH_SECONDS = 3.0
"""Longest wait of an ending process, such as a management command, for its last messages."""


class BackgroundSender:
    """A thread, started by the first message, and the messages that wait for it."""

    def __init__(self, subject: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``subject``: what the messages are, for the log."""
        self._warning = RepeatedWarning(logger, subject)
        self._clock = clock
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._is_idle = True
        self._failed_at = float("-inf")
        self._thread: threading.Thread | None = None

    def send(self, key: Hashable, message: Callable[[], None]) -> None:
        """Call ``message`` soon, on the thread; it replaces a waiting message of the same key.

        Never blocks, and raises nothing. Dropped within ``PAUSE_SECONDS`` of a failure.
        """
        with self._changed:
            if self._is_paused():
                return
            self._waiting[key] = message
            self._is_idle = False
            if self._thread is None or not self._thread.is_alive():  # none yet, or in a fork
                self._thread = threading.Thread(target=self._run, name="broker-sender", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all messages are sent or dropped; returns whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_idle, seconds)

    def _is_paused(self) -> bool:
        return self._clock() - self._failed_at < PAUSE_SECONDS

    def _run(self) -> None:
        while True:
            self._send_one(self._next())

    def _next(self) -> Callable[[], None]:
        with self._changed:
            while not self._waiting:
                self._is_idle = True
                self._changed.notify_all()
                self._changed.wait()
            return self._waiting.pop(next(iter(self._waiting)))

    def _send_one(self, message: Callable[[], None]) -> None:
        try:
            message()
        except Exception as error:
            with self._changed:
                self._failed_at = self._clock()
                self._waiting.clear()
            self._warning.failed("not sent (each receiver polls once a second): %s", error)
        else:
            self._warning.succeeded()
