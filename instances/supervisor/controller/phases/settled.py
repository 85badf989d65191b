"""Settled: no process, and none is to be started."""

from __future__ import annotations

from instances.desired_state import is_by_supervisor
from instances.states import DesiredState, Status
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller.managed_instance import WORKER_ENDS
from instances.supervisor.controller.phases.phase import Phase, PhaseWithoutProcess

_FINAL = (Status.FAILED, Status.STOPPED)


class Settled(PhaseWithoutProcess):
    """The phase of a stopped or failed instance, and of each instance at first sight."""

    def enter(self, now: float) -> None:
        if self._instance.wanted_row() is None:
            self._settle()

    def step(self, now: float) -> Phase:
        """Act on a new request, or on a process that is gone since the last worker."""
        self.due = NO_DEADLINE
        instance = self._instance
        row = instance.wanted_row()
        if row is None:
            self._settle()
            return self
        status = instance.observed.status
        if instance.has_new_request(row) or status is Status.RESTARTING:
            return self._request_start(row)
        if status in _FINAL:
            # The last request has had this outcome, and only a new request changes it.
            instance.allocation.release()
            return self
        instance.observed.lost(row)
        self.due = now
        return self

    def _settle(self) -> None:
        """Release the allocation, and write ``stopped`` where another status is left."""
        instance = self._instance
        instance.allocation.release()
        row, observed = instance.row, instance.observed
        if row is None:
            return
        if row.desired_state is DesiredState.STOPPED:
            # A start that the supervisor took back leaves the failure of the last start.
            is_kept = observed.status is Status.FAILED and is_by_supervisor(row.requested_by)
            if observed.status is not Status.STOPPED and not is_kept:
                observed.stopped(row, *instance.stop_cause(), is_outcome=False)
        elif observed.status not in _FINAL:
            observed.stopped(row, *WORKER_ENDS, is_outcome=False)
