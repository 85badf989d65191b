"""The controller of one instance: brings its process in line with its desired state.

The controller holds the instance's phase (``phases``) and moves from one phase to the next. It is
used on the supervisor's thread alone, and nothing in here blocks: a pending answer (a probe, the
effect of a signal, the delay of a restart, the database) is a time or a callback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from instances.desired_state import is_by_operator
from instances.states import DesiredState, Status
from instances.supervisor.context import LONG_AGO, NO_DEADLINE, SupervisorContext
from instances.supervisor.controller.allocation import Allocation
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.factory import PhaseFactory
from instances.supervisor.controller.phases.phase import Exit, Phase
from instances.supervisor.failure import exit_text, supervision_failure
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import Identity
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)


class InstanceController:
    """The interface of one supervised instance for the supervisor and the scheduler."""

    def __init__(self, name: str, row: Row | None, context: SupervisorContext) -> None:
        """``row`` is ``None`` for the process of an instance that was deleted."""
        self.name = name
        self.held_until = 0.0
        """Time before which the controller isn't stepped, after an error in its supervision."""
        self.faults = 0
        """Consecutive errors in its supervision."""
        self._context = context
        self._instance = ManagedInstance(name, row, context)
        self._phases = PhaseFactory(self._instance)
        self._phase: Phase = self._phases.settled()
        self._must_enter = False

    # -- events -----------------------------------------------------------------------------------

    def update(self, row: Row | None) -> None:
        """Take over the row as it is now; ``None`` if it was deleted."""
        self._instance.row = row
        if row is None:
            return
        self.allocation.update(row, self._context.clock())
        if row.desired_state is DesiredState.STOPPED and is_by_operator(row.requested_by):
            # An operator's stop bounds the drain that a preemption has begun.
            self._phase.limit_drain(self._instance.drain_deadline())

    def grant(self) -> None:
        """Start the instance, which has waited for its allocation."""
        self.allocation.grant()
        self._phase.due = 0.0

    def preempt(self, cause: str, reason: str) -> None:
        """Stop the instance: it is idle, or another one needs its allocation."""
        self.allocation.is_being_preempted = False
        instance = self._instance
        if instance.row is None:
            return
        instance.row = replace(instance.row, desired_state=DesiredState.STOPPED, requested_by=cause)
        instance.preempt_reason = reason
        self._phase.due = 0.0
        # At once: a request may have asked for a start by the next refresh of the rows, which
        # would turn the preemption into a restart.
        process = self._phase.process
        if process is not None and not self._phase.is_stopping:
            self._enter(self._phases.stopping(process), self._context.clock())

    def shut_down(self) -> None:
        """End the process with the worker; the desired state stays for the next worker."""
        self._instance.is_worker_ending = True
        self._phase.limit_drain(self._instance.drain_deadline())

    def end_quickly(self) -> None:
        """Skip the drain and shorten the grace periods: the worker has to end at once."""
        self._instance.is_worker_ending_quickly = True
        self._phase.end_quickly(self._context.clock())

    def abandon(self, error: Exception) -> None:
        """Fail the instance until it is started anew: its supervision raised again and again.

        A process is killed, because an unsupervised one could run forever.
        """
        failure = supervision_failure(error)
        instance, process = self._instance, self._phase.process
        if process is not None:
            self._enter(self._phases.abandoned(process, failure), self._context.clock())
            return
        self._phase, self._must_enter = self._phases.settled(), False
        row, status = instance.wanted_row(), instance.observed.status
        is_settled = status in (Status.FAILED, Status.STOPPED)
        if row is not None and (instance.has_new_request(row) or not is_settled):
            instance.observed.abandoned(row, failure)

    def clean_up_lost(self, noted: Iterable[Identity]) -> None:
        """End the rest of a process that ended without a worker."""
        self._instance.clean_up_lost(noted)

    def adopt(self, process: Process) -> None:
        """Take over a process that an earlier worker started."""
        row = self._instance.row
        self.allocation.grant()
        self._instance.adopt_container_of(process)
        logger.info("adopted process %d", process.pid, extra={"instance": self.name})
        if row is None or self._instance.observed.status is Status.SHUTTING_DOWN:
            phase = self._phases.stopping(process)
        else:
            phase = self._phases.startup_probing(process, row, is_adopted=True)
        self._enter(phase, self._context.clock())

    def close(self) -> None:
        """End the supervision; a remaining process lives on."""
        if self._phase.process is not None:
            self._phase.process.close()

    # -- state ------------------------------------------------------------------------------------

    @property
    def allocation(self) -> Allocation:
        return self._instance.allocation

    @property
    def row(self) -> Row | None:
        return self._instance.row

    @property
    def due(self) -> float:
        """Time at which ``step`` has something to do, even if nothing happens before."""
        if self._waits_for_docker:
            return NO_DEADLINE
        return max(self._stragglers_until, self._phase.due)

    @property
    def pid(self) -> int | None:
        return self._phase.process.pid if self._phase.process else None

    @property
    def process(self) -> Process | None:
        return self._phase.process

    @property
    def is_running(self) -> bool:
        """Whether there is a process, and it is not being stopped."""
        return self._phase.process is not None and not self._phase.is_stopping

    @property
    def is_ready(self) -> bool:
        return self._phase.is_ready

    @property
    def is_ending(self) -> bool:
        """Whether the allocation is about to be free."""
        return not self.allocation.is_granted or self.allocation.is_being_preempted

    @property
    def is_unresponsive(self) -> bool:
        return self._phase.is_unresponsive

    @property
    def is_busy(self) -> bool:
        """Whether this worker must finish something before it ends."""
        return self._phase.is_busy or self._instance.docker.is_pending

    @property
    def has_process(self) -> bool:
        """Whether there is a process, a start under way, or a container to remove."""
        is_starting = self._phase.is_starting
        return self._phase.process is not None or is_starting or self._instance.docker.is_pending

    @property
    def is_removed(self) -> bool:
        return self.row is None and not self.has_process

    # -- phases -----------------------------------------------------------------------------------

    def step(self) -> None:
        """Step the present phase, and enter its successor if there is one."""
        now = self._context.clock()
        if self._waits_for_docker:
            return
        if self._must_enter:
            self._enter(self._phase, now)
        following = self._phase.step(now)
        if following is not self._phase:
            self._enter(following, now)

    @property
    def _waits_for_docker(self) -> bool:
        # The next container may have the name of the present one, which is being removed.
        return self._phase.process is None and self._instance.docker.is_pending

    @property
    def _stragglers_until(self) -> float:
        return self._instance.stragglers_until if self._phase.is_starting else LONG_AGO

    def _enter(self, phase: Phase, now: float) -> None:
        """Make ``phase`` the present one.

        The phase is set before it begins, so that an error in there loses no process.
        """
        had_process = self._phase.process is not None
        self._phase, self._must_enter = phase, True
        if phase.process is not None and not had_process:
            self._context.watch(phase.process, self._on_exit)
        phase.enter(now)
        self._must_enter = False

    def _on_exit(self) -> None:
        """Reap the process, and enter the phase that follows from its exit."""
        phase, process = self._phase, self._phase.process
        if process is None:
            return
        instance = self._instance
        self._phase, self._must_enter = self._phases.settled(), False
        instance.allocation.unset_ready()
        exit_code = process.reap()
        logger.info("ended: %s", exit_text(exit_code), extra={"instance": self.name})
        instance.clean_up_after(process)
        if instance.row is None:
            return
        log_tail = instance.close_log(instance.row, process.marker.launch)
        end = Exit(instance.row, exit_code, log_tail)
        self._phase = phase.exited(end, self._context.clock())
