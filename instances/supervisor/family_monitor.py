"""Family monitor: the processes of each launch, where there is no control group.

A process that a backend has started is known as its descendant only while its parents live. So the
descendants are noted once a second, by pid and start time, and are ended with the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from instances.supervisor.context import NO_DEADLINE, OffThread
from instances.supervisor.process.pidfd import Process, kill
from instances.supervisor.process.process_table import Identity, family_of, read_table

PAUSE_SECONDS = 1.0

Families = dict[Identity, frozenset[Identity]]


class FamilyMonitor:
    """Notes the families of the processes without a control group, off the supervisor's thread."""

    def __init__(self, off_thread: OffThread, clock: Callable[[], float]) -> None:
        self.due = 0.0
        self._seen: frozenset[Identity] = frozenset()
        self._off_thread = off_thread
        self._clock = clock

    def step(self, now: float, processes: Iterable[Process | None]) -> None:
        """Read the processes again if that is due, or if there is a new launch."""
        found = [each for each in processes if each is not None and each.control_group is None]
        seen, self._seen = self._seen, frozenset(each.identity for each in found)
        if now < self.due and self._seen <= seen:
            return
        self.due = NO_DEADLINE if found else now + PAUSE_SECONDS
        if found:
            roots = {each.identity: each.noted for each in found}
            nothing: Families = {}
            self._off_thread(partial(_look, roots), partial(self._note, found), on_error=nothing)

    def _note(self, processes: Sequence[Process], families: Families) -> None:
        self.due = self._clock() + PAUSE_SECONDS
        for process in processes:
            family = families.get(process.identity, process.noted)
            if process.is_reaped:
                for pid, ticks in family - process.noted:
                    kill(pid, ticks)
            else:
                process.noted = family


def _look(roots: Families) -> Families:
    table = read_table()
    return {
        leader: family_of([leader, *noted], table) - {leader} for leader, noted in roots.items()
    }
