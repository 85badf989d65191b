"""Does an instance have room on its node, and if it waits for some, since when and how?"""

from __future__ import annotations

from collections.abc import Mapping

from instances.supervisor.state.rows import Row


class Allocation:
    """One instance's standing with the arbiter; the supervised instance and the arbiter share it.

    Whoever has a process, or a grant to start one, takes up room.
    """

    def __init__(self, row: Row | None, now: float) -> None:
        self.is_granted = False
        self.is_wanted = False
        """A start is due, and waits for nothing but the grant."""
        self.is_boot = False
        """When the worker started it should have had a process and had none, and nothing has been
        wished since then."""
        self.is_asked_to_leave = False
        """A wish to stop it is on its way to the database."""
        self.since = now
        """When its last wish was seen."""
        self.revision = row.revision if row else 0
        """Whoever knows this revision of the instances knows of that wish."""
        self.ready_since = now
        self.known_ready_from: int | None = None
        """The revision from which on the web processes know that it is ready; ``None``: it is not,
        or that is not written yet."""
        self.queue: Mapping[str, object] | None = row.queue if row else None
        """What the database has of its place in the queue."""
        self._generation = row.generation if row else 0

    def see(self, row: Row, now: float) -> None:
        if row.generation != self._generation:
            self._generation = row.generation
            self.since = now
            self.revision = row.revision
            self.is_boot = False

    def grant(self) -> None:
        self.is_granted = True
        self.is_wanted = self.is_boot = False
        self.queue = None  # the record of the start says so

    def forget_ready(self) -> None:
        self.known_ready_from = None

    def take_ready(self, revision: int) -> None:
        self.known_ready_from = revision
