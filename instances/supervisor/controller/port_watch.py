"""Port watch of a ready backend: its port's listeners stay those of its launch.

A backend that closes its listener, or loses its listening child, leaves its port to the next
program that binds it, while its process lives and passes for ready. The liveness probe alone would
notice nothing: the other program may answer.
"""

from __future__ import annotations

from instances.supervisor.context import NO_DEADLINE, SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.spawn import Endpoint
from instances.supervisor.process.listeners import NOBODY
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row

PAUSE_SECONDS = 5.0


class PortWatch:
    """Looks at the listeners of one process's port, off the supervisor's thread."""

    def __init__(
        self, process: Process, endpoint: Endpoint, context: SupervisorContext, now: float
    ) -> None:
        self.foreign = ""
        """Description of a listener that is not the launch's; empty without one."""
        self.due = now + PAUSE_SECONDS
        self._process = process
        self._endpoint = endpoint
        self._context = context

    def step(self, now: float) -> None:
        if now < self.due:
            return
        self.due = NO_DEADLINE
        process, endpoint, context = self._process, self._endpoint, self._context

        def look() -> str:
            return context.owner_of(process, endpoint.bind_host, endpoint.port).foreign

        context.off_thread(look, self._take, on_error=NOBODY.foreign)

    def _take(self, foreign: str) -> None:
        self.foreign = foreign
        self.due = self._context.clock() + (0.0 if foreign else PAUSE_SECONDS)


def port_watch_for(
    process: Process, row: Row, context: SupervisorContext, now: float
) -> PortWatch | None:
    """Create the watch of a process that just became ready; ``None`` with unreadable options."""
    try:
        return PortWatch(process, spawn.endpoint(row), context, now)
    except spawn.LaunchFailed:
        return None
