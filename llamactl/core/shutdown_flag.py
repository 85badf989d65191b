"""Shutdown flag of this web process.

An endless response (a followed log) checks the flag from time to time and ends. Otherwise the
server would wait for the response until the end of its grace period.
"""

from __future__ import annotations

import threading

_shutting_down = threading.Event()


def begin_shutdown() -> None:
    """Set the flag; called by the server at the start of its shutdown."""
    _shutting_down.set()


def is_shutting_down() -> bool:
    return _shutting_down.is_set()
