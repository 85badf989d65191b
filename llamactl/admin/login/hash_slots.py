"""Bound on the passwords that are hashed at once.

A hash takes a core for about half a second. Without the bound a flood of logins from many addresses
would take all cores from the requests to the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from llamactl.admin.login.errors import LoginsBusy

MAX_WAITING = 16
WAIT_SECONDS = 10.0


class HashSlot:
    """One hash at a time, and a bounded number of threads that wait for it."""

    def __init__(self, max_waiting: int = MAX_WAITING, wait_seconds: float = WAIT_SECONDS) -> None:
        self._slot = BoundedSemaphore()
        self._places = BoundedSemaphore(max_waiting)
        self._wait_seconds = wait_seconds

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the slot. Blocks for a bounded time; raises LoginsBusy."""
        if not self._places.acquire(blocking=False):
            raise LoginsBusy
        try:
            is_taken = self._slot.acquire(timeout=self._wait_seconds)
        finally:
            self._places.release()
        if not is_taken:
            raise LoginsBusy
        try:
            yield
        finally:
            self._slot.release()


_unknown_browsers = HashSlot()
_known_browsers = HashSlot()


def slot_for(*, is_known: bool) -> HashSlot:
    """Return the slot of a web process: a flood of others' logins delays no known browser."""
    return _known_browsers if is_known else _unknown_browsers
