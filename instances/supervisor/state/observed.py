"""Observed state of one instance.

Each method is one observation: it changes the state in memory at once, and queues the same change
for the database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from instances.states import ON_DEMAND, DesiredState, Status
from instances.supervisor.failure import Failure
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.failure_hold import failure_hold
from instances.supervisor.state.rows import Observation, Row
from instances.supervisor.state.store import StateStore

logger = logging.getLogger(__name__)

_NO_PROCESS: dict[str, Any] = {"pid": None, "pid_started_ticks": None, "launch_id": ""}


class ObservedState:
    """The observed columns of one instance.

    The columns are read from the row when the worker first sees the instance, and never again: from
    then on the state in memory is the truth, and the row is its copy.
    """

    def __init__(self, name: str, row: Row | None, store: StateStore) -> None:
        self.status = row.status if row else Status.RUNNING
        self.observed_generation = row.observed_generation if row else 0
        self.restarts = row.restarts if row else 0
        self.failed_starts = row.failed_starts if row else 0
        """Failures in a row of starts that requests caused."""
        # Only an instance that was ready once is ever restarted.
        self.has_been_ready = self.restarts > 0 or self.status in (
            Status.RUNNING,
            Status.RESTARTING,
        )
        self._name = name
        self._store = store

    def starting(self, row: Row, *, then: Callable[[], None]) -> None:
        """A process is about to be started; ``then`` is called once the row is written."""
        is_requested = row.generation > self.observed_generation
        if is_requested:
            self.restarts = 0
            self.has_been_ready = False
            if not self._repeats_failure(row):
                self.failed_starts = 0
        self.observed_generation = row.generation
        self._write(
            row,
            Status.STARTING,
            cause="supervisor:start" if is_requested else "supervisor:restart",
            reason=f"requested by {row.requested_by}" if is_requested and row.requested_by else "",
            then=lambda _: then(),
            observed_generation=self.observed_generation,
            restarts=self.restarts,
            failure=None,
            failed_starts=self.failed_starts,
            failure_hold_until=None,
            started_at=None,
            ready_at=None,
            queue=None,
        )

    def started(self, row: Row, process: Process) -> None:
        self._write(
            row,
            Status.STARTING,
            cause="supervisor:start",
            pid=process.pid,
            pid_started_ticks=process.started_ticks,
            launch_id=process.marker.launch,
            started_at=timezone.now(),
        )

    def adopted(self, row: Row, process: Process, *, then: Callable[[int], None]) -> None:
        """A process of an earlier worker was found; ``then`` gets the revision of the write."""
        self._write(
            row,
            Status.RUNNING if self.status is Status.RUNNING else Status.STARTING,
            cause="supervisor:adoption",
            then=then,
            pid=process.pid,
            pid_started_ticks=process.started_ticks,
            launch_id=process.marker.launch,
        )

    def ready(self, row: Row, *, then: Callable[[int], None]) -> None:
        """The process is ready; ``then`` gets the revision from which the web processes know."""
        self.has_been_ready = True
        if self.status is Status.STARTING:
            self._write(
                row,
                Status.RUNNING,
                cause="supervisor:ready",
                then=then,
                ready_at=timezone.now(),
            )

    def stable(self, row: Row) -> None:
        """The process has been up for long enough that its failures are forgotten."""
        self.restarts = self.failed_starts = 0
        self._write(row, self.status, cause="supervisor:stable", restarts=0, failed_starts=0)

    def shutting_down(
        self, row: Row, cause: str, reason: str, *, then: Callable[[int], None]
    ) -> None:
        """A stop begins; ``then`` gets the revision from which the web processes know."""
        self._write(row, Status.SHUTTING_DOWN, cause=cause, reason=reason, then=then)

    def stopped(self, row: Row, cause: str, reason: str, *, is_outcome: bool) -> None:
        """No process is left. ``is_outcome``: this is the outcome of the last requested start.

        Otherwise the last request counts as not acted on: if the desired state is ``running``, a
        process is started again (after a shutdown by the next worker).
        """
        if row.desired_state is DesiredState.RUNNING and not is_outcome:
            self.observed_generation = min(self.observed_generation, max(0, row.generation - 1))
        self._write(
            row,
            Status.STOPPED,
            cause=cause,
            reason=reason,
            observed_generation=self.observed_generation,
            **_NO_PROCESS,
        )

    def restarting(self, row: Row, failure: Failure, delay_seconds: float) -> None:
        """The process crashed, and is started again after the delay."""
        self.restarts += 1
        self._write(
            row,
            Status.RESTARTING,
            cause="supervisor:crash",
            reason=f"{failure.details}; restart in {delay_seconds:g} s",
            restarts=self.restarts,
            failure=failure.to_document(),
            **_NO_PROCESS,
        )

    def lost(self, row: Row) -> None:
        """The process ended while no worker was there, and is started again."""
        cause, reason = "supervisor:adoption", "the process has ended without a worker"
        if self.status is Status.SHUTTING_DOWN:
            self.stopped(row, cause, reason, is_outcome=False)
        else:
            self._write(row, Status.RESTARTING, cause=cause, reason=reason, **_NO_PROCESS)

    def failed(self, row: Row, failure: Failure, *, cause: str = "supervisor:crash") -> None:
        """The last requested start has failed, or its process has crashed for good."""
        hold_until = None
        if row.requested_by == ON_DEMAND:
            self.failed_starts += 1
            hold = failure_hold(self.failed_starts, has_been_ready=self.has_been_ready)
            hold_until = timezone.now() + timedelta(seconds=hold)
        self._write(
            row,
            Status.FAILED,
            cause=cause,
            reason=failure.details,
            failure=failure.to_document(),
            failed_starts=self.failed_starts,
            failure_hold_until=hold_until,
            **_NO_PROCESS,
        )

    def abandoned(self, row: Row, failure: Failure) -> None:
        """The supervision failed and no process is left; the failure is the request's outcome."""
        cause = "supervisor:fault"
        if self.status is Status.SHUTTING_DOWN:
            self.stopped(row, cause, failure.details, is_outcome=True)
        if self.status in (Status.STOPPED, Status.FAILED):
            self.starting(row, then=lambda: None)  # so that the failure belongs to the last request
        self.failed(row, failure, cause=cause)

    def _repeats_failure(self, row: Row) -> bool:
        """Whether a start repeats a failed one: same options, and no operator has requested it."""
        is_edited = row.edited_generation >= self.observed_generation > 0
        return self.status is Status.FAILED and row.requested_by == ON_DEMAND and not is_edited

    def _write(
        self,
        row: Row,
        new: Status,
        *,
        cause: str,
        reason: str = "",
        then: Callable[[int], None] | None = None,
        **columns: object,
    ) -> None:
        old, self.status = self.status, new
        if old is not new:
            logger.info(
                "%s → %s%s",
                old.value,
                new.value,
                f" ({reason})" if reason else "",
                extra={"instance": self._name},
            )
        self._store.write(Observation(row.id, self._name, old, new, cause, reason, columns), then)
