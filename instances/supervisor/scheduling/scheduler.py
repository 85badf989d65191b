"""Scheduler of a node: starts, preemptions and idle stops.

The scheduler collects the input of ``instances.scheduling.policy`` (the instances with a process,
the requests in flight and waiting) and carries out the decisions. A grant takes effect at once. A
preemption is a change of the desired state in the database, and fails if the desired state has
changed meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from instances.scheduling.policy import Decision, PendingStart, Resident, decide, limits_of
from instances.scheduling.traffic_report import Traffic
from instances.states import ABANDONED, EVICTED, IDLE, ON_DEMAND
from instances.supervisor.context import LONG_AGO, NO_DEADLINE
from instances.supervisor.controller.controller import InstanceController
from instances.supervisor.scheduling.traffic_monitor import TrafficMonitor
from instances.supervisor.state.rows import Row
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig

logger = logging.getLogger(__name__)

WAITING_POLL_SECONDS = 0.15
"""Interval of the traffic reports while an instance waits for its allocation."""
SLOW_POLL_SECONDS = 1.0
"""While a backend is unresponsive, or waits for its turn after a boot."""
IDLE_POLL_SECONDS = 2.0
"""While an instance may become idle, which takes minutes."""
USED_POLL_SECONDS = 30.0
"""Interval of writes of ``last_used_at``, and of the reports if nothing else needs them."""
QUEUE_WRITE_SECONDS = 0.5
"""Delay of a write of the queue, in which further changes are collected."""


class Scheduler:
    """Decides on the capacity of one node. Used on the supervisor's thread."""

    def __init__(
        self,
        config: AppConfig,
        store: StateStore,
        traffic: TrafficMonitor,
        clock: Callable[[], float],
    ) -> None:
        self.due = 0.0
        """Time at which ``schedule`` has something to do, even if nothing happens before."""
        self._limits = limits_of(config.instances)
        self._store = store
        self._traffic = traffic
        self._clock = clock
        self._turns: dict[str, float] = {}
        self._idle_checked_at = LONG_AGO
        self._write_queue_at = NO_DEADLINE
        self._written: dict[int, float] = {}
        self._write_used_at = clock() + USED_POLL_SECONDS

    def schedule(self, now: float, instances: Sequence[InstanceController]) -> None:
        """1. Stop idle instances. 2. Grant starts, or preempt others. 3. Publish the queue.

        Reads the traffic reports as often as these steps need them.
        """
        # The latest reports are enough: a preempted instance answers its requests in flight, and a
        # request starts it again.
        traffic = self._traffic.latest()
        if traffic is not None and self._traffic.read_began_at > self._idle_checked_at:
            self._idle_checked_at = self._traffic.read_began_at
            self._stop_idle(now, instances, traffic)
        requesting = [each for each in instances if each.allocation.is_requested]
        hold: dict[str, dict[str, object]] = {}
        if requesting:
            hold = self._allocate(now, instances, requesting, traffic)
        else:
            self._turns.clear()  # the queue is empty, so fairness starts anew
        self._publish_queue(now, instances, hold)
        if now >= self._write_used_at:
            self._write_used_at = now + USED_POLL_SECONDS
            self.write_used(instances)
        interval = self._interval(instances)
        self._traffic.step(now, interval)
        self.due = min(self._traffic.due(interval), self._write_queue_at, self._write_used_at)

    def write_used(self, instances: Sequence[InstanceController]) -> None:
        """Write the times of the last use that have changed."""
        used: dict[int, datetime] = {}
        for row in (each.row for each in instances):
            at = self._traffic.last_used.get(row.name, 0.0) if row is not None else 0.0
            if row is not None and at > max(self._written.get(row.id, 0.0), _unix(row)) + 0.001:
                used[row.id] = datetime.fromtimestamp(at, UTC)
                self._written[row.id] = at
        if used:
            self._store.write_last_used(used)

    def _interval(self, instances: Sequence[InstanceController]) -> float:
        requested = [each.allocation for each in instances if each.allocation.is_requested]
        if not all(allocation.is_boot_start for allocation in requested):
            return WAITING_POLL_SECONDS
        if requested or any(each.is_unresponsive for each in instances):
            return SLOW_POLL_SECONDS
        if any(_can_become_idle(each) for each in instances):
            return IDLE_POLL_SECONDS
        return USED_POLL_SECONDS if any(each.is_ready for each in instances) else NO_DEADLINE

    # -- idleness ---------------------------------------------------------------------------------

    def _stop_idle(
        self, now: float, instances: Sequence[InstanceController], traffic: Traffic
    ) -> None:
        for each in instances:
            row = each.row
            if row is None or not _can_become_idle(each) or self._requests(each, traffic) != 0:
                continue
            if now - self._last_used(each) >= row.idle_timeout_seconds:
                minutes = row.options["idle_timeout"]
                self._preempt(each, row, IDLE, f"not used for {minutes} min")

    def _requests(self, instance: InstanceController, traffic: Traffic | None) -> int | None:
        """Count the requests in flight and waiting.

        ``None`` until all web processes know that the instance is ready: before, its requests can't
        have begun.
        """
        ready_from = instance.allocation.known_ready_from
        if traffic is None or ready_from is None or not traffic.has_seen(ready_from):
            return None
        return traffic.in_use(instance.name) + traffic.waiting(instance.name)

    def _last_used(self, instance: InstanceController) -> float:
        return max(self._traffic.used.get(instance.name, LONG_AGO), instance.allocation.ready_since)

    # -- capacity ---------------------------------------------------------------------------------

    def _allocate(
        self,
        now: float,
        instances: Sequence[InstanceController],
        requesting: Sequence[InstanceController],
        traffic: Traffic | None,
    ) -> dict[str, dict[str, object]]:
        """Grant starts and preempt; returns name → place, length and reason of the waiting."""
        by_name = {each.name: each for each in instances if each.row is not None}
        pending = []
        for each in requesting:
            if each.row is not None and not each.allocation.is_being_preempted:
                if self._is_abandoned(each, each.row, traffic):
                    self._preempt(each, each.row, ABANDONED, "no request waits for it any more")
                else:
                    pending.append(self._pending_start(each, each.row, traffic))
        decision = decide(
            self._limits,
            [
                self._resident(each, each.row, traffic)
                for each in by_name.values()
                if each.row is not None and (each.allocation.is_granted or each.has_process)
            ],
            pending,
            turns=self._turns,
            now=now,
        )
        for name in decision.start:
            by_name[name].grant()
        for start in pending:
            if start.name in decision.start and not start.is_boot_start:
                self._turns |= dict.fromkeys(start.waiters, now)
        for name, beneficiary in decision.preempt.items():
            row = by_name[name].row
            if row is not None:
                self._preempt(by_name[name], row, EVICTED, f"preempted for {beneficiary}")
        return _queue(decision)

    def _is_abandoned(
        self, instance: InstanceController, row: Row, traffic: Traffic | None
    ) -> bool:
        """Whether all requests that a start was requested for have disconnected.

        A request counts as waiting before it requests the start. So if all web processes know of
        the requested start and report no waiting request, none is left.
        """
        if row.requested_by != ON_DEMAND or instance.allocation.is_boot_start or traffic is None:
            return False
        return (
            bool(traffic.reports)
            and traffic.has_seen(instance.allocation.requested_revision)
            and not traffic.waiting(instance.name)
        )

    def _pending_start(
        self, instance: InstanceController, row: Row, traffic: Traffic | None
    ) -> PendingStart:
        demand = traffic.demand(instance.name) if traffic is not None else {}
        return PendingStart(
            instance.name,
            row.group,
            since=instance.allocation.requested_since,
            demand=demand,
            is_boot_start=instance.allocation.is_boot_start and not demand,
            # Its requests may have disconnected; and reports from before the requested start do not
            # say which instances are idle now.
            may_preempt=(
                row.requested_by != ON_DEMAND
                or (traffic is not None and traffic.may_evict_for(instance.name))
            )
            and self._traffic.read_began_at >= instance.allocation.requested_since,
            last_used=_unix(row),
        )

    def _resident(
        self, instance: InstanceController, row: Row, traffic: Traffic | None
    ) -> Resident:
        return Resident(
            instance.name,
            row.group,
            is_pinned=row.is_pinned,
            stops_when_idle=row.idle_timeout_seconds > 0,
            is_loading=not instance.is_ready and not instance.is_ending,
            is_ending=instance.is_ending,
            requests=self._requests(instance, traffic),
            starts_on_demand=row.starts_on_demand,
            last_used=self._last_used(instance),
            ready_since=instance.allocation.ready_since,
        )

    def _preempt(self, instance: InstanceController, row: Row, cause: str, reason: str) -> None:
        instance.allocation.is_being_preempted = True
        self._store.request_stop(
            row, cause, partial(self._on_stop_requested, instance, cause, reason)
        )

    def _on_stop_requested(
        self, instance: InstanceController, cause: str, reason: str, is_requested: bool
    ) -> None:
        if is_requested:
            logger.info("stopping: %s", reason, extra={"instance": instance.name})
            instance.preempt(cause, reason)
        else:
            instance.allocation.is_being_preempted = False

    # -- the queue --------------------------------------------------------------------------------

    def _publish_queue(
        self,
        now: float,
        instances: Sequence[InstanceController],
        hold: dict[str, dict[str, object]],
    ) -> None:
        changes = {
            each.row.id: hold.get(each.name)
            for each in instances
            if each.row is not None and hold.get(each.name) != each.allocation.queue
        }
        if not changes:
            self._write_queue_at = NO_DEADLINE
        elif self._write_queue_at is NO_DEADLINE:
            self._write_queue_at = now + QUEUE_WRITE_SECONDS
        elif now >= self._write_queue_at:
            self._write_queue_at = NO_DEADLINE
            self._store.write_queue(changes)
            for each in instances:
                if each.row is not None and each.row.id in changes:
                    each.allocation.queue = changes[each.row.id]


def _queue(decision: Decision) -> dict[str, dict[str, object]]:
    length = len(decision.places)
    return {
        name: {"place": place, "length": length, "reason": decision.hold[name]}
        for name, place in decision.places.items()
    }


def _can_become_idle(instance: InstanceController) -> bool:
    row = instance.row
    if row is None or instance.is_ending or not instance.is_ready:
        return False
    return row.idle_timeout_seconds > 0


def _unix(row: Row) -> float:
    return row.last_used_at.timestamp() if row.last_used_at is not None else 0.0
