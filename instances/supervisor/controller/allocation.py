"""The capacity that one instance takes up on its node, or waits for."""

from __future__ import annotations

from collections.abc import Mapping

from instances.supervisor.state.rows import Row


class Allocation:
    """The claim of one instance to run, shared by its controller and the scheduler.

    An instance takes up capacity from the grant of a start until its process is gone.
    """

    def __init__(self, row: Row | None, now: float) -> None:
        self.is_granted = False
        self.is_requested = False
        """A start is due and waits for nothing but the grant."""
        self.is_boot_start = False
        """The instance ran before the worker started, has no process, and no start has been
        requested since."""
        self.is_being_preempted = False
        """The desired state ``stopped`` is on its way to the database."""
        self.requested_since = now
        """Time at which the last requested start was seen."""
        self.requested_revision = row.revision if row else 0
        """A process that has seen this revision of the instances knows of the requested start."""
        self.ready_since = now
        self.known_ready_from: int | None = None
        """Revision from which on the web processes know that the instance is ready; ``None`` for an
        instance that is not ready, or whose readiness is not written yet."""
        self.queue: Mapping[str, object] | None = row.queue if row else None
        """Place in the queue as the database has it."""
        self._generation = row.generation if row else 0

    def update(self, row: Row, now: float) -> None:
        """Take over a start or restart that was requested since the last row."""
        if row.generation != self._generation:
            self._generation = row.generation
            self.requested_since = now
            self.requested_revision = row.revision
            self.is_boot_start = False

    def grant(self) -> None:
        self.is_granted = True
        self.is_requested = self.is_boot_start = False
        self.queue = None  # the observation of the start clears the column

    def release(self) -> None:
        self.is_granted = self.is_requested = False

    def set_ready(self, revision: int) -> None:
        self.known_ready_from = revision

    def unset_ready(self) -> None:
        self.known_ready_from = None
