"""Startup probing: a process that is not known to be ready yet."""

from __future__ import annotations

import logging
import signal

from django.utils import timezone

from instances.backends.failure_signs import FailureReason
from instances.states import Status
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller import spawn
from instances.supervisor.controller.liveness_probe import liveness_probe_for
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.phase import Phase, Phases, PhaseWithProcess
from instances.supervisor.controller.port_watch import port_watch_for
from instances.supervisor.controller.spawn import LaunchFailed
from instances.supervisor.controller.startup_probe import StartupProbe
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)


class StartupProbing(PhaseWithProcess):
    """Probes a new or adopted process until it is ready, or until ``start_timeout``."""

    def __init__(
        self,
        instance: ManagedInstance,
        phases: Phases,
        process: Process,
        row: Row,
        *,
        is_adopted: bool,
    ) -> None:
        super().__init__(instance, phases, process)
        self._row = row
        self._is_adopted = is_adopted
        self._probe: StartupProbe | None = None

    def enter(self, now: float) -> None:
        timeout = self._instance.limits.start_timeout
        if not self._is_adopted:
            self._instance.observed.started(self._row, self.process)
        elif self._adopt(now) is Status.RUNNING:
            timeout = NO_DEADLINE  # it was ready before: the liveness probe decides, not the time
        self._probe = self._startup_probe(now, timeout)
        self.due = now

    def step(self, now: float) -> Phase:
        """Probe, and go on once the backend is ready, too late, or not wanted any more."""
        probe = self._probe
        if probe is not None and probe.ready_after is not None and self._instance.row is not None:
            return self._become_ready(self._instance.row, probe.ready_after, now)
        if self._instance.row_to_keep_running() is None:
            return self._phases.stopping(self.process)
        if probe is None:
            return self._phases.ready(self.process, None, None)
        if probe.has_foreign_listener:
            return self._phases.stopping(self.process, FailureReason.PORT_IN_USE, probe.last_answer)
        if probe.is_late(now):
            return self._phases.stopping(self.process, FailureReason.TIMEOUT, probe.last_answer)
        probe.step(now)
        self.due = probe.due
        return self

    def _adopt(self, now: float) -> Status:
        """Take over a process that an earlier worker started; returns the status from then on."""
        # An earlier llamactl stopped a backend (SIGSTOP) while it rotated the log. A worker of that
        # release that was killed in this moment has left the backend stopped.
        self.process.signal_group(signal.SIGCONT)
        instance, row = self._instance, self._row
        instance.observed.adopted(row, self.process, then=instance.allocation.set_ready)
        instance.allocation.ready_since = now
        if row.ready_at is not None:
            age = (timezone.now() - row.ready_at).total_seconds()
            instance.allocation.ready_since -= max(0.0, age)
        return instance.observed.status

    def _startup_probe(self, now: float, timeout_seconds: float) -> StartupProbe | None:
        context = self._instance.context
        try:
            endpoint = spawn.endpoint(self._row)
        except LaunchFailed as failed:
            # An adopted process with options that can't be read any more: it runs on, unprobed.
            logger.warning("not probed: %s", failed, extra={"instance": self._instance.name})
            return None
        return StartupProbe(
            self.process, endpoint, context, now=now, timeout_seconds=timeout_seconds
        )

    def _become_ready(self, row: Row, seconds: float, now: float) -> Phase:
        instance = self._instance
        logger.info("ready after %.1f s", seconds, extra={"instance": instance.name})
        if instance.observed.status is Status.STARTING:
            instance.allocation.ready_since = now
        instance.observed.ready(row, then=instance.allocation.set_ready)
        liveness = liveness_probe_for(row, instance.context, now)
        watch = port_watch_for(self.process, row, instance.context, now)
        return self._phases.ready(self.process, liveness, watch)
