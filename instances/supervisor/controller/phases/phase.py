"""The interface of a phase, and the rules that several phases share.

The phases and their successors::

    settled ──▶ waiting for allocation ──▶ starting ──▶ startup probing ──▶ ready
       ▲  ▲                  ▲                │               │              │
       │  │                  │                ▼               │              │
       │  │                  └── waiting to restart ◀── (crash) ◀────────────┤
       │  └─────────────────────────── (failed, exited) ◀─────┤              │
       └───────────────────── stopping, abandoned ◀───────────┴──────────────┘

A phase has at most one thing under way. It creates its successors through ``Phases``, so that no
phase imports another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from instances.backends.failure_signs import FailureReason
from instances.states import Status
from instances.supervisor.controller.liveness_probe import LivenessProbe
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.port_watch import PortWatch
from instances.supervisor.failure import Failure, exit_failure, exit_text
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Row


@dataclass(frozen=True)
class Exit:
    """The end of an instance's process."""

    row: Row
    code: int | None
    """Exit code, or minus the signal's number; ``None`` for a process that is no child."""
    log_tail: Sequence[str]


class Phase(ABC):
    """One phase of an instance. ``step`` never blocks; pending answers are times or callbacks."""

    process: Process | None = None
    is_starting = False
    """A process is about to be started."""
    is_stopping = False

    def __init__(self, instance: ManagedInstance, phases: Phases) -> None:
        self.due = 0.0
        """Time at which ``step`` has something to do, even if nothing happens before."""
        self._instance = instance
        self._phases = phases

    @property
    def is_ready(self) -> bool:
        """Whether the backend answers requests, as far as is known."""
        return False

    @property
    def is_unresponsive(self) -> bool:
        """Whether the backend did not answer the last liveness probe."""
        return False

    @property
    def is_busy(self) -> bool:
        """Whether this worker must finish the phase and can't leave it to the next worker."""
        return False

    # An empty default, and not an abstract method: most phases have nothing to do here.
    def enter(self, now: float) -> None:  # noqa: B027
        """Begin the phase. Called again before the next step, if it raises."""

    @abstractmethod
    def step(self, now: float) -> Phase:
        """Do the due work, and set ``due``; returns the phase itself or its successor."""

    @abstractmethod
    def exited(self, end: Exit, now: float) -> Phase:
        """Record the exit of the process; returns the successor."""

    def limit_drain(self, until: float) -> None:  # noqa: B027
        """Bound the wait for requests in flight."""

    def end_quickly(self, now: float) -> None:  # noqa: B027
        """Skip the drain, and shorten the grace periods."""

    def _after_crash(self, row: Row, failure: Failure, now: float) -> Phase:
        """Restart after a delay, or fail."""
        delay = self._instance.restart_delay(row, failure)
        if delay is None:
            self._instance.observed.failed(row, failure)
            return self._phases.settled()
        self._instance.observed.restarting(row, failure, delay)
        return self._phases.waiting_to_restart(now + delay)


class PhaseWithoutProcess(Phase):
    """A phase before there is a process, or after."""

    def exited(self, end: Exit, now: float) -> Phase:
        raise AssertionError("there is no process that could exit")

    def _request_start(self, row: Row) -> Phase:
        """Start now, or wait for the allocation."""
        if self._instance.allocation.is_granted:
            return self._phases.starting(row)
        return self._phases.waiting_for_allocation()


class PhaseWithProcess(Phase):
    """A phase that owns a process."""

    def __init__(self, instance: ManagedInstance, phases: Phases, process: Process) -> None:
        super().__init__(instance, phases)
        self.process: Process = process

    def exited(self, end: Exit, now: float) -> Phase:
        observed = self._instance.observed
        was_ready = observed.status is Status.RUNNING
        if self._instance.row_to_keep_running() is None:
            return self._stopped(end, self._instance.stop_cause()[0])
        if was_ready and end.code == 0:
            observed.stopped(end.row, "supervisor:exit", "ended by itself", is_outcome=True)
            return self._phases.settled()
        failure = exit_failure(end.code, end.log_tail, was_ready=was_ready)
        return self._after_crash(end.row, failure, now)

    def _stopped(self, end: Exit, cause: str) -> Phase:
        self._instance.observed.stopped(end.row, cause, exit_text(end.code), is_outcome=False)
        return self._phases.settled()


class Phases(Protocol):
    """Creates the phases of one instance."""

    def settled(self) -> Phase: ...

    def waiting_for_allocation(self) -> Phase: ...

    def starting(self, row: Row) -> Phase: ...

    def startup_probing(self, process: Process, row: Row, *, is_adopted: bool) -> Phase: ...

    def ready(
        self, process: Process, liveness: LivenessProbe | None, watch: PortWatch | None
    ) -> Phase: ...

    def waiting_to_restart(self, at: float) -> Phase: ...

    def stopping(
        self, process: Process, failed_by: FailureReason | None = None, last_answer: str = ""
    ) -> Phase: ...

    def abandoned(self, process: Process, failure: Failure) -> Phase: ...
