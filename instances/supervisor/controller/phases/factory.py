"""The factory of one instance's phases."""

from __future__ import annotations

from instances.backends.failure_signs import FailureReason
from instances.supervisor.controller.liveness_probe import LivenessProbe
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.phase import Phase
from instances.supervisor.controller.phases.ready import Ready
from instances.supervisor.controller.phases.settled import Settled
from instances.supervisor.controller.phases.starting import Starting
from instances.supervisor.controller.phases.startup_probing import StartupProbing
from instances.supervisor.controller.phases.stopping import Abandoned, Stopping
from instances.supervisor.controller.phases.waiting import WaitingForAllocation, WaitingToRestart
from instances.supervisor.controller.port_watch import PortWatch
from instances.supervisor.failure import Failure
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row


class PhaseFactory:
    """Creates the phases of one instance (``phase.Phases``)."""

    def __init__(self, instance: ManagedInstance) -> None:
        self._instance = instance

    def settled(self) -> Phase:
        return Settled(self._instance, self)

    def waiting_for_allocation(self) -> Phase:
        return WaitingForAllocation(self._instance, self)

    def starting(self, row: Row) -> Phase:
        return Starting(self._instance, self, row)

    def startup_probing(self, process: Process, row: Row, *, is_adopted: bool) -> Phase:
        return StartupProbing(self._instance, self, process, row, is_adopted=is_adopted)

    def ready(
        self, process: Process, liveness: LivenessProbe | None, watch: PortWatch | None
    ) -> Phase:
        return Ready(self._instance, self, process, liveness, watch)

    def waiting_to_restart(self, at: float) -> Phase:
        return WaitingToRestart(self._instance, self, at)

    def stopping(
        self, process: Process, failed_by: FailureReason | None = None, last_answer: str = ""
    ) -> Phase:
        return Stopping(self._instance, self, process, failed_by, last_answer)

    def abandoned(self, process: Process, failure: Failure) -> Phase:
        return Abandoned(self._instance, self, process, failure)
