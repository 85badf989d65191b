"""Does a process get ready to answer, and in time?"""

from __future__ import annotations

from collections.abc import Callable

from instances.supervisor.context import NEVER, SupervisorContext
from instances.supervisor.controller.health_check import pause_before_next
from instances.supervisor.controller.spawn import Endpoint


class StartupProbe:
    """Probes one process until it is ready or has taken too long."""

    def __init__(
        self,
        endpoint: Endpoint,
        world: SupervisorContext,
        *,
        now: float,
        timeout_seconds: float,
        on_ready: Callable[[float], None],
    ) -> None:
        """``on_ready`` gets the seconds it took; after ``cancel`` it is not called any more."""
        self._endpoint = endpoint
        self._world = world
        self._began_at = now
        self._deadline = now + timeout_seconds
        self._probe_at = now
        self._on_ready: Callable[[float], None] | None = on_ready

    @property
    def due(self) -> float:
        return min(self._probe_at, self._deadline)

    def is_late(self, now: float) -> bool:
        return now >= self._deadline

    def cancel(self) -> None:
        """The process is gone, or to go: an answer that is still on its way says nothing."""
        self._on_ready = None

    def step(self, now: float) -> None:
        if now < self._probe_at:
            return
        self._probe_at = NEVER
        target = self._endpoint
        self._world.off_thread(
            lambda: self._world.is_ready(target.origin, target.health_paths, target.key),
            self._take_answer,
            on_error=False,
        )

    def _take_answer(self, is_ready: bool) -> None:
        now = self._world.clock()
        elapsed = now - self._began_at
        self._probe_at = NEVER if is_ready else now + pause_before_next(elapsed)
        if is_ready and self._on_ready is not None:
            self._on_ready(elapsed)
