"""Does a backend that was ready still answer, or does it hang?

A process that is alive and answers nothing, neither health checks nor requests, for
``instances.unhealthy_timeout`` is as good as crashed.
"""

from __future__ import annotations

import logging

from instances.backends import backend_for
from instances.scheduling.traffic_report import Traffic
from instances.supervisor.context import NEVER, SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.spawn import Endpoint
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)

PAUSE_SHARE = 0.75
"""Of the timeout, between two probes that are answered; what is left of it is for a few more."""
LEAST_PROBES = 2
"""In a row that no answer came to: one may itself take longer than a short timeout leaves."""
LONGEST_PAUSE_SECONDS = 5.0
"""Between two probes of a backend that did not answer the last one."""


class LivenessProbe:
    """Probes one ready process: now and then while it answers, often once it doesn't."""

    def __init__(self, row: Row, endpoint: Endpoint, world: SupervisorContext, now: float) -> None:
        backend = backend_for(str(row.options["backend_type"]))
        self._needs_quiet = not backend.answers_health_while_busy
        self._name = row.name
        self._endpoint = endpoint
        self._world = world
        self._timeout = world.config.instances.unhealthy_timeout
        self._answered_at = now
        self._unanswered = 0
        """Probes in a row."""
        self._doubtful_since = now
        """When the first of them was given up."""
        self._probe_at = now + PAUSE_SHARE * self._timeout

    @property
    def due(self) -> float:
        return self._probe_at

    @property
    def is_doubtful(self) -> bool:
        """Whether it did not answer the last probe."""
        return self._unanswered > 0

    def step(self, now: float) -> None:
        if now < self._probe_at:
            return
        self._probe_at = NEVER
        target = self._endpoint
        self._world.off_thread(
            lambda: self._world.is_ready(target.origin, target.health_paths, target.key),
            self._take_answer,
            on_error=True,  # a mistake of ours, which says nothing of the backend
        )

    def is_hung(self, now: float) -> bool:
        """Whether it has been silent for too long.

        Where nobody can say what it carries, it is not: it may be in the middle of an answer.
        """
        since = now - self._timeout
        if self._unanswered < LEAST_PROBES or self._answered_at > since:
            return False
        traffic = self._world.traffic()
        if traffic is None or traffic.read_at < self._doubtful_since:
            return False
        return self._is_silent(traffic, since)

    def _is_silent(self, traffic: Traffic, since: float) -> bool:
        if self._needs_quiet and traffic.in_use(self._name):
            return False
        return traffic.last_byte(self._name) <= since

    def _take_answer(self, is_well: bool) -> None:
        now = self._world.clock()
        was_doubtful = self.is_doubtful
        if is_well:
            self._answered_at = now
            self._unanswered = 0
            self._probe_at = now + PAUSE_SHARE * self._timeout
        else:
            if not was_doubtful:
                self._doubtful_since = now
            self._unanswered += 1
            self._probe_at = now + min(self._timeout / 10, LONGEST_PAUSE_SECONDS)
        if self.is_doubtful is not was_doubtful:
            text = "it answers again" if is_well else "it does not answer its health check"
            logger.log(
                logging.INFO if is_well else logging.WARNING, text, extra={"instance": self._name}
            )


def liveness_probe_for(row: Row, world: SupervisorContext, now: float) -> LivenessProbe | None:
    """A vigil over the row's process, which just got ready; ``None`` if none is wished."""
    if world.config.instances.unhealthy_timeout <= 0:
        return None
    try:
        endpoint = spawn.endpoint(row, world.key_for(row.id))
    except spawn.LaunchFailed:  # an adopted one, whose options have become unreadable
        return None
    return LivenessProbe(row, endpoint, world, now)
