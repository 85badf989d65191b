"""Docker commands of one instance that are under way."""

from __future__ import annotations

from collections.abc import Callable

from instances.supervisor.context import OffThread


class DockerCalls:
    """Runs docker commands off the supervisor's thread, and counts the pending ones."""

    def __init__(self, off_thread: OffThread) -> None:
        self._off_thread = off_thread
        self._pending = 0

    @property
    def is_pending(self) -> bool:
        return self._pending > 0

    def run(self, command: Callable[[], None]) -> None:
        """Run a docker command; returns at once."""
        self._pending += 1
        self._off_thread(command, self._finish, on_error=None)

    def _finish(self, _: None) -> None:
        self._pending -= 1
