"""Stopping: drain, signals, and the exit that follows."""

from __future__ import annotations

import logging
import signal

from instances.backends.failure_signs import FailureReason
from instances.states import Status
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.controller.drain import RemainingTraffic
from instances.supervisor.controller.managed_instance import ManagedInstance
from instances.supervisor.controller.phases.phase import Exit, Phase, Phases, PhaseWithProcess
from instances.supervisor.controller.stop_sequence import (
    SHORT_GRACE_SECONDS,
    Drain,
    StopSequence,
)
from instances.supervisor.failure import Failure, deadline_failure, port_failure
from instances.supervisor.process.pidfd import Process

logger = logging.getLogger(__name__)


class Stopping(PhaseWithProcess):
    """Ends a process that is not wanted any more, or has missed a deadline.

    A process that missed a deadline (``failed_by``) serves no request, so it is not drained; it
    keeps its status until it is gone, and has failed or crashed then. One whose port another
    program listens on is killed at once: until it is gone, requests may go to that program.
    """

    is_stopping = True

    def __init__(
        self,
        instance: ManagedInstance,
        phases: Phases,
        process: Process,
        failed_by: FailureReason | None,
        last_answer: str,
    ) -> None:
        """``last_answer``: what the last startup probe got, or found, for the failure."""
        super().__init__(instance, phases, process)
        self._failed_by = failed_by
        self._last_answer = last_answer
        self._cause = ""
        self._sequence: StopSequence | None = None

    @property
    def is_busy(self) -> bool:
        # The next worker can go on with an unbounded drain.
        return self._sequence is not None and not self._sequence.has_unbounded_drain

    def enter(self, now: float) -> None:
        instance = self._instance
        instance.allocation.unset_ready()
        # A restart keeps its allocation.
        instance.allocation.is_granted = instance.wanted_row() is not None
        drain = self._drain(now)
        is_quick = instance.is_worker_ending_quickly
        self._sequence = StopSequence(
            self.process,
            drain=drain,
            grace_seconds=SHORT_GRACE_SECONDS if is_quick else instance.limits.stop_timeout,
            now=now,
            on_signal=self._on_signal,
        )
        if self._failed_by is FailureReason.PORT_IN_USE:
            self._sequence.kill_at_once()
        self.due = now
        self._cause, reason = instance.stop_cause()
        if instance.observed.status is Status.SHUTTING_DOWN:
            self._begin_drain(drain, revision=0)  # an earlier worker has announced it
        elif instance.row is not None and self._failed_by is None:
            instance.observed.shutting_down(
                instance.row,
                self._cause,
                reason,
                then=lambda revision: self._begin_drain(drain, revision),
            )

    def step(self, now: float) -> Phase:
        if self._sequence is not None:
            self._sequence.step(now)
            self.due = self._sequence.due
        return self

    def exited(self, end: Exit, now: float) -> Phase:
        """Record the stop; or the failure, if the process missed a deadline and is still wanted."""
        instance = self._instance
        if self._failed_by is None or instance.row_to_keep_running() is None:
            return self._stopped(end, self._cause)
        if self._failed_by is FailureReason.PORT_IN_USE:
            return self._after_crash(end.row, port_failure(self._last_answer, end.log_tail), now)
        failure = deadline_failure(
            self._failed_by, instance.limits, end.code, end.log_tail, last_answer=self._last_answer
        )
        if self._failed_by is not FailureReason.TIMEOUT:
            return self._after_crash(end.row, failure, now)
        instance.observed.failed(end.row, failure)
        return self._phases.settled()

    def limit_drain(self, until: float) -> None:
        if self._sequence is not None:
            self._sequence.limit_drain(until)

    def end_quickly(self, now: float) -> None:
        if self._sequence is not None:
            self._sequence.end_quickly(now)

    def _drain(self, now: float) -> Drain | None:
        """Return the wait for requests in flight; ``None`` where there can be none."""
        instance = self._instance
        has_served = instance.observed.status in (Status.RUNNING, Status.SHUTTING_DOWN)
        is_skipped = self._failed_by is not None or instance.is_worker_ending_quickly
        if instance.row is None or not has_served or is_skipped:
            return None
        return Drain(
            instance.context.off_thread,
            until=now + instance.limits.drain_timeout,
            is_unbounded=instance.may_wait_for_requests(instance.row),
        )

    def _begin_drain(self, drain: Drain | None, revision: int) -> None:
        row = self._instance.row
        if drain is not None and row is not None:
            drain.begin(RemainingTraffic(self._instance.name, row.port, revision))

    def _on_signal(self, number: signal.Signals) -> None:
        level = logging.WARNING if number is signal.SIGKILL else logging.INFO
        logger.log(level, "%s", number.name, extra={"instance": self._instance.name})
        container = self.process.marker.container
        if container and number is signal.SIGINT:
            self._instance.docker.stop(container, 2 * self._instance.limits.stop_timeout)


class Abandoned(PhaseWithProcess):
    """A killed process, after repeated errors in its supervision."""

    def __init__(
        self, instance: ManagedInstance, phases: Phases, process: Process, failure: Failure
    ) -> None:
        super().__init__(instance, phases, process)
        self._failure = failure

    def enter(self, now: float) -> None:
        self._instance.allocation.unset_ready()
        self.process.signal_group(signal.SIGKILL)

    def step(self, now: float) -> Phase:
        self.due = NO_DEADLINE
        return self

    def exited(self, end: Exit, now: float) -> Phase:
        if self._instance.row_to_keep_running() is None:
            return self._stopped(end, self._instance.stop_cause()[0])
        self._instance.observed.abandoned(end.row, self._failure)
        return self._phases.settled()
