"""How is a thread woken that sleeps in poll()?"""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class Wakeup:
    """A pipe to oneself: ``ring`` from any thread makes ``fileno`` readable."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._reader

    def ring(self) -> None:
        """Wake the sleeper, once or more; a bell that is closed rings nobody."""
        # Under the lock, because the number of a closed descriptor may be another file's by now.
        with self._lock, suppress(BlockingIOError):
            if self._writer >= 0:
                os.write(self._writer, b"\0")

    def quiet(self) -> None:
        """Take back all rings up to now."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        with self._lock:
            for descriptor in (self._reader, self._writer):
                os.close(descriptor)
            self._reader = self._writer = -1
