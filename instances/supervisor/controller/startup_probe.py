"""Startup probe: polls a new backend until it is ready to answer.

An answer counts only if the port's listeners are those of the launch: another user's program may
have taken the port, and would get the backend's key with the first request.
"""

from __future__ import annotations

from instances.supervisor.context import NO_DEADLINE, SupervisorContext
from instances.supervisor.controller.health_check import ProbeAnswer, pause_before_next
from instances.supervisor.controller.spawn import Endpoint
from instances.supervisor.process.listeners import PortOwner
from instances.supervisor.process.pidfd import Process


class StartupProbe:
    """Polls one process until it is ready, and knows when it is too late."""

    def __init__(
        self,
        process: Process,
        endpoint: Endpoint,
        context: SupervisorContext,
        *,
        now: float,
        timeout_seconds: float,
    ) -> None:
        self.ready_after: float | None = None
        """Seconds until the process was ready; ``None`` before."""
        self.last_answer = ""
        """What the last probe got."""
        self.has_foreign_listener = False
        """Whether another program listens on the port."""
        self._process = process
        self._endpoint = endpoint
        self._context = context
        self._began_at = now
        self._deadline = now + timeout_seconds
        self._probe_at = now

    @property
    def due(self) -> float:
        return min(self._probe_at, self._deadline)

    def is_late(self, now: float) -> bool:
        return now >= self._deadline

    def step(self, now: float) -> None:
        if now < self._probe_at:
            return
        self._probe_at = NO_DEADLINE
        self._context.off_thread(
            self._ask,
            self._take_answer,
            on_error=ProbeAnswer(
                is_ready=False, details="an error of llamactl; see the worker's log"
            ),
        )

    def _ask(self) -> ProbeAnswer:
        """Probe, off the supervisor's thread: the port's owner, the health, and the owner again."""
        before = self._owner()
        if before.foreign:
            return _taken(before)
        answer = self._context.check_health(self._endpoint.origin, self._endpoint.health_paths)
        if not answer.is_ready:
            return answer
        owner = self._owner()
        if owner.is_ours:
            return answer
        if owner.foreign:
            return _taken(owner)
        return ProbeAnswer(
            is_ready=False,
            details=f"{answer.details}, but nothing listens on port {self._endpoint.port} here",
        )

    def _owner(self) -> PortOwner:
        return self._context.owner_of(self._process, self._endpoint.bind_host, self._endpoint.port)

    def _take_answer(self, answer: ProbeAnswer) -> None:
        now = self._context.clock()
        elapsed = now - self._began_at
        self.last_answer = answer.details
        self.has_foreign_listener = answer.is_foreign
        if answer.is_ready:
            self.ready_after = elapsed
        elif not answer.is_foreign:
            self._probe_at = now + pause_before_next(elapsed)


def _taken(owner: PortOwner) -> ProbeAnswer:
    return ProbeAnswer(is_ready=False, details=owner.foreign, is_foreign=True)
