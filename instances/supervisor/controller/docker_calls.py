"""Docker commands of one instance that are under way."""

from __future__ import annotations

from collections.abc import Callable

from instances.supervisor.context import OffThread
from instances.supervisor.process.containers import (
    remove_by_id,
    remove_container,
    stop_by_id,
    stop_container,
    unlabelled,
)
from instances.supervisor.process.pidfd import Process


class DockerCalls:
    """Runs docker commands off the supervisor's thread, and counts the pending ones."""

    def __init__(self, off_thread: OffThread) -> None:
        self._off_thread = off_thread
        self._pending = 0
        self._unlabelled: str | None = None
        """Id of the container of an adopted process that llamactl 0.1 started, without labels."""

    @property
    def is_pending(self) -> bool:
        return self._pending > 0

    def adopt_unlabelled(self, name: str, process: Process) -> None:
        """Identify the container of a living process that llamactl 0.1 started.

        As long as the process lives, the container of this name is the one it started: docker gives
        a name to one container at a time. Later only the id identifies that container.
        """

        def keep(container: str | None) -> None:
            self._pending -= 1
            if process.fileno() >= 0 and not process.has_exited():
                self._unlabelled = container

        self._pending += 1
        self._off_thread(lambda: unlabelled(name), keep, on_error=None)

    def stop(self, name: str, seconds: float) -> None:
        """Stop the instance's container; returns at once."""
        if container := self._unlabelled:
            self._run(lambda: stop_by_id(container, seconds))
        else:
            self._run(lambda: stop_container(name, seconds))

    def remove(self, name: str) -> None:
        """Remove the instance's container; returns at once."""
        if container := self._unlabelled:
            self._unlabelled = None
            self._run(lambda: remove_by_id(container))
        else:
            self._run(lambda: remove_container(name))

    def _run(self, command: Callable[[], None]) -> None:
        self._pending += 1
        self._off_thread(command, self._finish, on_error=None)

    def _finish(self, _: None) -> None:
        self._pending -= 1
