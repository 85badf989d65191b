"""Wake-up of a thread that sleeps in poll()."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class Wakeup:
    """A pipe that becomes readable when any thread calls ``wake``."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        """Wake the sleeping thread; does nothing once closed."""
        # Locked, because another file may have the number of a closed descriptor by now.
        with self._lock, suppress(BlockingIOError):
            if self._writer >= 0:
                os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Discard the wake-ups until now."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        with self._lock:
            for descriptor in (self._reader, self._writer):
                os.close(descriptor)
            self._reader = self._writer = -1
