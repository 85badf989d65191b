"""Ready: a backend that answers requests, under liveness probes."""

from __future__ import annotations

from instances.backends.failure_signs import FailureReason
from instances.states import Status
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller import spawn
from instances.supervisor.controller.liveness_probe import LivenessProbe
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.phase import Phase, Phases, PhaseWithProcess
from instances.supervisor.controller.port_watch import PortWatch
from instances.supervisor.controller.restart_policy import stable_seconds
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row


class Ready(PhaseWithProcess):
    """A ready backend: ended if it hangs or another program has its port, given its restarts back
    if it stays up."""

    def __init__(
        self,
        instance: ManagedInstance,
        phases: Phases,
        process: Process,
        liveness: LivenessProbe | None,
        watch: PortWatch | None,
    ) -> None:
        super().__init__(instance, phases, process)
        self._liveness = liveness
        self._watch = watch
        self._since = 0.0

    @property
    def is_ready(self) -> bool:
        # An adopted process that can't be probed may be here with another status.
        return self._instance.observed.status is Status.RUNNING

    @property
    def is_unresponsive(self) -> bool:
        return self._liveness is not None and self._liveness.is_unresponsive

    def enter(self, now: float) -> None:
        self._since = self.due = now

    def step(self, now: float) -> Phase:
        row = self._instance.row_to_keep_running()
        if row is None:
            return self._phases.stopping(self.process)
        self.due = NO_DEADLINE
        if self._watch is not None:
            if self._watch.foreign:
                return self._phases.stopping(
                    self.process, FailureReason.PORT_IN_USE, self._watch.foreign
                )
            self._watch.step(now)
            self.due = self._watch.due
        if self._liveness is not None:
            if self._liveness.is_hung(now):
                return self._phases.stopping(self.process, FailureReason.HUNG)
            self._liveness.step(now)
            self.due = min(self.due, self._liveness.due)
        observed = self._instance.observed
        has_failed = observed.restarts > 0 or observed.failed_starts > 0
        if has_failed and not self.is_unresponsive:
            self._step_stable(row, now)
        return self

    def _step_stable(self, row: Row, now: float) -> None:
        """Reset the counts of failures, once the backend has been up for long enough."""
        stable_at = self._since + stable_seconds(spawn.restart_policy(row))
        if now >= stable_at:
            self._instance.observed.stable(row)
        else:
            self.due = min(self.due, stable_at)
