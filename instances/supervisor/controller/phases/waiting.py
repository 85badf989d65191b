"""Waiting before a start: for capacity, or for the delay after a crash."""

from __future__ import annotations

from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.phase import Phase, Phases, PhaseWithoutProcess


class WaitingForAllocation(PhaseWithoutProcess):
    """A start that the scheduler has not granted yet."""

    def enter(self, now: float) -> None:
        self._instance.allocation.is_requested = True

    def step(self, now: float) -> Phase:
        self.due = NO_DEADLINE  # until the scheduler grants the start
        row = self._instance.wanted_row()
        if row is None:
            return self._phases.settled()
        return self._phases.starting(row) if self._instance.allocation.is_granted else self


class WaitingToRestart(PhaseWithoutProcess):
    """The delay between a crash and the next attempt. The instance keeps its allocation."""

    def __init__(self, instance: ManagedInstance, phases: Phases, at: float) -> None:
        super().__init__(instance, phases)
        self._at = at

    def step(self, now: float) -> Phase:
        self.due = self._at
        row = self._instance.wanted_row()
        if row is None:
            return self._phases.settled()
        if now >= self._at or self._instance.has_new_request(row):
            return self._request_start(row)
        return self
