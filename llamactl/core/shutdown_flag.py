"""Has this web process been told to end?

What would go on for ever (a log that is followed) asks now and then, and ends: the server waits for
all that is in flight, and would wait out its whole grace period.
"""

from __future__ import annotations

import threading

_told = threading.Event()


def begin_shutdown() -> None:
    """Called by the server when it begins to shut down."""
    _told.set()


def is_shutting_down() -> bool:
    return _told.is_set()
