"""What has been seen of an instance, and how is it told to the database?

Each method is one thing that can be observed; it changes what is known here at once and puts the
same into the ledger's queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.utils import timezone

from instances.states import DesiredState, Status
from instances.supervisor.failure import Failure
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.rows import Observation, Row
from instances.supervisor.state.store import StateStore

logger = logging.getLogger(__name__)

_NO_PROCESS: dict[str, None] = {"pid": None, "pid_started_ticks": None}


class ObservedState:
    """The observed columns of one instance, as its supervisor knows them.

    They are read from the row at first sight and never again: from then on this is the truth, and
    the row is the copy.
    """

    def __init__(self, name: str, row: Row | None, ledger: StateStore) -> None:
        self.status = row.status if row else Status.RUNNING
        self.observed_generation = row.observed_generation if row else 0
        self.restarts = row.restarts if row else 0
        # Only what had been ready once is ever restarted.
        self.has_been_ready = self.restarts > 0 or self.status in (
            Status.RUNNING,
            Status.RESTARTING,
        )
        self._name = name
        self._ledger = ledger

    def starting(self, row: Row, *, then: Callable[[], None]) -> None:
        """A process is about to be started; ``then`` is called once that is written."""
        is_new_wish = row.generation > self.observed_generation
        if is_new_wish:
            self.restarts = 0
            self.has_been_ready = False
        self.observed_generation = row.generation
        self._write(
            row,
            Status.STARTING,
            cause="supervisor:start" if is_new_wish else "supervisor:restart",
            reason=f"asked by {row.requested_by}" if is_new_wish and row.requested_by else "",
            then=lambda _: then(),
            observed_generation=self.observed_generation,
            restarts=self.restarts,
            failure=None,
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
            started_at=timezone.now(),
        )

    def adopted(self, row: Row, process: Process, *, then: Callable[[int], None]) -> None:
        """A process is there that an earlier worker had started; ``then`` gets the revision."""
        self._write(
            row,
            Status.RUNNING if self.status is Status.RUNNING else Status.STARTING,
            cause="supervisor:adoption",
            then=then,
            pid=process.pid,
            pid_started_ticks=process.started_ticks,
        )

    def ready(self, row: Row, *, then: Callable[[int], None]) -> None:
        """``then`` gets the revision from which on the web processes know."""
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
        """It has been up for so long that its restarts are forgotten."""
        self.restarts = 0
        self._write(row, self.status, cause="supervisor:stable", restarts=0)

    def shutting_down(
        self, row: Row, cause: str, reason: str, *, then: Callable[[int], None]
    ) -> None:
        """``then`` gets the revision from which on the web processes know."""
        self._write(row, Status.SHUTTING_DOWN, cause=cause, reason=reason, then=then)

    def stopped(self, row: Row, cause: str, reason: str, *, is_outcome: bool) -> None:
        """No process is left. ``is_outcome``: so it has done what was wished of it.

        If not, and a process is wished, the wish counts as not seen yet, and whoever supervises
        next (after a shutdown: the next worker) starts one.
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
        """It crashed, and is started again after the delay."""
        self.restarts += 1
        self._write(
            row,
            Status.RESTARTING,
            cause="supervisor:crash",
            reason=f"{failure.details}; again in {delay_seconds:g} s",
            restarts=self.restarts,
            failure=failure.to_document(),
            **_NO_PROCESS,
        )

    def gone(self, row: Row) -> None:
        """It ended while nobody was there to see it, and is started again."""
        cause, reason = "supervisor:adoption", "its process is gone"
        if self.status is Status.SHUTTING_DOWN:
            self.stopped(row, cause, reason, is_outcome=False)
        else:
            self._write(row, Status.RESTARTING, cause=cause, reason=reason, **_NO_PROCESS)

    def failed(self, row: Row, failure: Failure, *, cause: str = "supervisor:crash") -> None:
        self._write(
            row,
            Status.FAILED,
            cause=cause,
            reason=failure.details,
            failure=failure.to_document(),
            **_NO_PROCESS,
        )

    def given_up(self, row: Row, failure: Failure) -> None:
        """There is no process, and the wish for one is settled by this failure."""
        cause = "supervisor:fault"
        if self.status is Status.SHUTTING_DOWN:
            self.stopped(row, cause, failure.details, is_outcome=True)
        if self.status in (Status.STOPPED, Status.FAILED):
            self.starting(row, then=lambda: None)  # so that the failure is this wish's
        self.failed(row, failure, cause=cause)

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
        self._ledger.record(Observation(row.id, self._name, old, new, cause, reason, columns), then)
