"""Liveness probe of a ready backend.

A process that answers neither health checks nor requests for ``instances.unhealthy_timeout`` hangs,
and is treated like a crashed one.
"""

from __future__ import annotations

import logging

from instances.backends.registry import backend_for
from instances.scheduling.traffic_report import Traffic
from instances.supervisor.context import NO_DEADLINE, SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.health_check import READY, ProbeAnswer
from instances.supervisor.controller.spawn import Endpoint
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)

PAUSE_SHARE = 0.75
"""Share of the timeout between two answered probes; the rest is for a few more probes."""
MIN_UNANSWERED = 2
"""Consecutive unanswered probes before a hang: one alone may take longer than a short timeout."""
LONGEST_PAUSE_SECONDS = 5.0
"""Between two probes of an unresponsive backend."""


class LivenessProbe:
    """Probes one ready process: seldom while it answers, often once it is unresponsive."""

    def __init__(
        self, row: Row, endpoint: Endpoint, context: SupervisorContext, now: float
    ) -> None:
        backend = backend_for(str(row.options["backend_type"]))
        self._must_be_unused = not backend.answers_health_while_busy
        self._name = row.name
        self._endpoint = endpoint
        self._context = context
        self._timeout = context.config.instances.unhealthy_timeout
        self._answered_at = now
        self._unanswered = 0
        """Consecutive probes."""
        self._unresponsive_since = now
        """Time at which the first of the unanswered probes timed out."""
        self._probe_at = now + PAUSE_SHARE * self._timeout

    @property
    def due(self) -> float:
        return self._probe_at

    @property
    def is_unresponsive(self) -> bool:
        """Whether the backend did not answer the last probe."""
        return self._unanswered > 0

    def step(self, now: float) -> None:
        if now < self._probe_at:
            return
        self._probe_at = NO_DEADLINE
        target = self._endpoint
        self._context.off_thread(
            lambda: self._context.check_health(target.origin, target.health_paths),
            self._take_answer,
            on_error=READY,  # an error of llamactl says nothing about the backend
        )

    def is_hung(self, now: float) -> bool:
        """Whether the backend has been silent for the timeout.

        Without fresh traffic reports it is not: it may be in the middle of a response.
        """
        since = now - self._timeout
        if self._unanswered < MIN_UNANSWERED or self._answered_at > since:
            return False
        traffic = self._context.traffic()
        if traffic is None or traffic.read_at < self._unresponsive_since:
            return False
        return self._is_silent(traffic, since)

    def _is_silent(self, traffic: Traffic, since: float) -> bool:
        if self._must_be_unused and traffic.in_use(self._name):
            return False
        return traffic.last_byte(self._name) <= since

    def _take_answer(self, answer: ProbeAnswer) -> None:
        is_well = answer.is_ready
        now = self._context.clock()
        was_unresponsive = self.is_unresponsive
        if is_well:
            self._answered_at = now
            self._unanswered = 0
            self._probe_at = now + PAUSE_SHARE * self._timeout
        else:
            if not was_unresponsive:
                self._unresponsive_since = now
            self._unanswered += 1
            self._probe_at = now + min(self._timeout / 10, LONGEST_PAUSE_SECONDS)
        if self.is_unresponsive is not was_unresponsive:
            instance = {"instance": self._name}
            if is_well:
                logger.info("liveness probe answered again", extra=instance)
            else:
                logger.warning("liveness probe not answered: %s", answer.details, extra=instance)


def liveness_probe_for(row: Row, context: SupervisorContext, now: float) -> LivenessProbe | None:
    """Create the probe of a process that just became ready; ``None`` if probing is off."""
    if context.config.instances.unhealthy_timeout <= 0:
        return None
    try:
        endpoint = spawn.endpoint(row)
    except spawn.LaunchFailed:  # an adopted process, with options that can't be read any more
        return None
    return LivenessProbe(row, endpoint, context, now)
