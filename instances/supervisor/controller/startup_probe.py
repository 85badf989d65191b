"""Startup probe: polls a new backend until it is ready to answer."""

from __future__ import annotations

from instances.supervisor.context import NO_DEADLINE, SupervisorContext
from instances.supervisor.controller.health_check import ProbeAnswer, pause_before_next
from instances.supervisor.controller.spawn import Endpoint


class StartupProbe:
    """Polls one process until it is ready, and knows when it is too late."""

    def __init__(
        self, endpoint: Endpoint, context: SupervisorContext, *, now: float, timeout_seconds: float
    ) -> None:
        self.ready_after: float | None = None
        """Seconds until the process was ready; ``None`` before."""
        self.last_answer = ""
        """What the last probe got."""
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
        target = self._endpoint
        self._context.off_thread(
            lambda: self._context.check_health(target.origin, target.health_paths),
            self._take_answer,
            on_error=ProbeAnswer(
                is_ready=False, details="an error of llamactl; see the worker's log"
            ),
        )

    def _take_answer(self, answer: ProbeAnswer) -> None:
        now = self._context.clock()
        elapsed = now - self._began_at
        self.last_answer = answer.details
        if answer.is_ready:
            self.ready_after = elapsed
        else:
            self._probe_at = now + pause_before_next(elapsed)
