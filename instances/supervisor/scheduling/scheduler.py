"""Which instances of this node start now, which make room, and which have been idle for long?

It gathers what ``instances.scheduling.policy`` decides by (who has a process, what the web
processes carry and wait for), and carries the decisions out: grants at
once; stops as a wish in the database, which a newer wish of somebody else wins over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from instances.scheduling.policy import Decision, Resident, Wanted, decide, limits_of
from instances.scheduling.traffic_report import Traffic
from instances.states import ABANDONED, EVICTED, IDLE, ON_DEMAND
from instances.supervisor.context import NEVER
from instances.supervisor.controller.controller import InstanceController
from instances.supervisor.scheduling.traffic_monitor import TrafficMonitor
from instances.supervisor.state.rows import Row
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig

logger = logging.getLogger(__name__)

WAITING_POLL_SECONDS = 0.15
"""How often the reports are read while somebody waits for room."""
DOUBT_POLL_SECONDS = 1.0
IDLE_POLL_SECONDS = 2.0
"""While something may become idle, which takes minutes."""
USED_POLL_SECONDS = 30.0
"""How often ``last_used_at`` is written, and the reports read if nothing else needs them."""
QUEUE_SECONDS = 0.5
"""How long a change of the queue waits for more of them before it is written."""


class Scheduler:
    """Rules over the room of one node, on the supervisor's thread."""

    def __init__(
        self,
        config: AppConfig,
        ledger: StateStore,
        poll: TrafficMonitor,
        clock: Callable[[], float],
    ) -> None:
        self.due = 0.0
        """When ``rule`` has something to do even if nothing happens before."""
        self._limits = limits_of(config.instances)
        self._ledger = ledger
        self._poll = poll
        self._clock = clock
        self._turns: dict[str, float] = {}
        self._judged_at = -NEVER
        self._queue_at = NEVER
        self._written: dict[int, float] = {}
        self._write_used_at = clock() + USED_POLL_SECONDS

    def rule(self, now: float, instances: Sequence[InstanceController]) -> None:
        """1. Stop what is idle. 2. Give room, or have it made. 3. Tell who waits, and for what.

        Reads the reports as often as these need them.
        """
        # Nothing here can't be undone: who is told to go answers what it carries, and a request
        # brings it back.
        traffic = self._poll.news()
        if traffic is not None and self._poll.asked_at > self._judged_at:
            self._judged_at = self._poll.asked_at
            self._stop_idle(now, instances, traffic)
        wanting = [each for each in instances if each.room.is_wanted]
        hold: dict[str, dict[str, object]] = {}
        if wanting:
            hold = self._give_room(now, instances, wanting, traffic)
        else:
            self._turns.clear()  # whoever comes to wait now, comes after all of them
        self._tell(now, instances, hold)
        if now >= self._write_used_at:
            self._write_used_at = now + USED_POLL_SECONDS
            self.write_used(instances)
        interval = self._interval(instances)
        self._poll.step(now, interval)
        self.due = min(self._poll.due(interval), self._queue_at, self._write_used_at)

    def write_used(self, instances: Sequence[InstanceController]) -> None:
        """Have it written when each was last used, where that is news."""
        used: dict[int, datetime] = {}
        for row in (each.row for each in instances):
            at = self._poll.last_used.get(row.name, 0.0) if row is not None else 0.0
            if row is not None and at > max(self._written.get(row.id, 0.0), _unix(row)) + 0.001:
                used[row.id] = datetime.fromtimestamp(at, UTC)
                self._written[row.id] = at
        if used:
            self._ledger.write_last_used(used)

    def _interval(self, instances: Sequence[InstanceController]) -> float:
        if any(each.room.is_wanted and not each.room.is_boot for each in instances):
            return WAITING_POLL_SECONDS
        if any(each.room.is_wanted or each.is_doubtful for each in instances):
            return DOUBT_POLL_SECONDS
        if any(_may_idle(each) for each in instances):
            return IDLE_POLL_SECONDS
        return USED_POLL_SECONDS if any(each.is_ready for each in instances) else NEVER

    # -- idleness ---------------------------------------------------------------------------------

    def _stop_idle(
        self, now: float, instances: Sequence[InstanceController], traffic: Traffic
    ) -> None:
        for each in instances:
            row = each.row
            if row is None or not _may_idle(each) or self._requests(each, traffic) != 0:
                continue
            if now - self._last_used(each) >= row.idle_timeout_seconds:
                minutes = row.options["idle_timeout"]
                self._ask_to_leave(each, row, IDLE, f"not used for {minutes} min")

    def _requests(self, instance: InstanceController, traffic: Traffic | None) -> int | None:
        """In flight and waiting; ``None`` where not every web process can have begun any yet."""
        ready_from = instance.room.known_ready_from
        if traffic is None or ready_from is None or not traffic.has_seen(ready_from):
            return None
        return traffic.in_use(instance.name) + traffic.waiting(instance.name)

    def _last_used(self, instance: InstanceController) -> float:
        return max(self._poll.used.get(instance.name, -NEVER), instance.room.ready_since)

    # -- room -------------------------------------------------------------------------------------

    def _give_room(
        self,
        now: float,
        instances: Sequence[InstanceController],
        wanting: Sequence[InstanceController],
        traffic: Traffic | None,
    ) -> dict[str, dict[str, object]]:
        """Name → place, length and reason, of those that have to wait."""
        by_name = {each.name: each for each in instances if each.row is not None}
        wanted = []
        for each in wanting:
            if each.row is not None and not each.room.is_asked_to_leave:
                if self._is_abandoned(each, each.row, traffic):
                    self._ask_to_leave(each, each.row, ABANDONED, "nobody waits for it any more")
                else:
                    wanted.append(self._wanted(each, each.row, traffic))
        decision = decide(
            self._limits,
            [
                self._resident(each, each.row, traffic)
                for each in by_name.values()
                if each.row is not None and (each.room.is_granted or each.has_process)
            ],
            wanted,
            turns=self._turns,
            now=now,
        )
        for name in decision.start:
            by_name[name].grant()
        for each_wanted in wanted:
            if each_wanted.name in decision.start and not each_wanted.is_boot:
                self._turns |= dict.fromkeys(each_wanted.waiters, now)
        for name, beneficiary in decision.evict.items():
            row = by_name[name].row
            if row is not None:
                self._ask_to_leave(by_name[name], row, EVICTED, f"makes room for {beneficiary}")
        return _queue(decision)

    def _is_abandoned(
        self, instance: InstanceController, row: Row, traffic: Traffic | None
    ) -> bool:
        """Whether it was wanted for requests that have all given up.

        A request counts as waiting before it makes the wish, so whoever knows of the wish and
        reports nobody has nobody left.
        """
        if row.requested_by != ON_DEMAND or instance.room.is_boot or traffic is None:
            return False
        return (
            bool(traffic.reports)
            and traffic.has_seen(instance.room.revision)
            and not traffic.waiting(instance.name)
        )

    def _wanted(self, instance: InstanceController, row: Row, traffic: Traffic | None) -> Wanted:
        demand = traffic.demand(instance.name) if traffic is not None else {}
        return Wanted(
            instance.name,
            row.group,
            since=instance.room.since,
            demand=demand,
            is_boot=instance.room.is_boot and not demand,
            # Its requests may have gone, and what was read before it was wished says nothing of
            # who is idle now.
            is_certain=(bool(demand) or row.requested_by != ON_DEMAND)
            and self._poll.asked_at >= instance.room.since,
            last_used=_unix(row),
        )

    def _resident(
        self, instance: InstanceController, row: Row, traffic: Traffic | None
    ) -> Resident:
        return Resident(
            instance.name,
            row.group,
            is_pinned=not row.idle_timeout_seconds,
            is_loading=not instance.is_ready and not instance.is_ending,
            is_ending=instance.is_ending,
            requests=self._requests(instance, traffic),
            comes_back=row.starts_on_demand,
            last_used=self._last_used(instance),
            ready_since=instance.room.ready_since,
        )

    def _ask_to_leave(
        self, instance: InstanceController, row: Row, cause: str, reason: str
    ) -> None:
        instance.room.is_asked_to_leave = True
        self._ledger.wish_stop(row, cause, partial(self._take_wish, instance, cause, reason))

    def _take_wish(
        self, instance: InstanceController, cause: str, reason: str, is_wished: bool
    ) -> None:
        if is_wished:
            logger.info("stops: %s", reason, extra={"instance": instance.name})
            instance.give_way(cause, reason)
        else:
            instance.room.is_asked_to_leave = False

    # -- the queue, as it is shown ----------------------------------------------------------------

    def _tell(
        self,
        now: float,
        instances: Sequence[InstanceController],
        hold: dict[str, dict[str, object]],
    ) -> None:
        news = {
            each.row.id: hold.get(each.name)
            for each in instances
            if each.row is not None and hold.get(each.name) != each.room.queue
        }
        if not news:
            self._queue_at = NEVER
        elif self._queue_at is NEVER:
            self._queue_at = now + QUEUE_SECONDS
        elif now >= self._queue_at:
            self._queue_at = NEVER
            self._ledger.write_queue(news)
            for each in instances:
                if each.row is not None and each.row.id in news:
                    each.room.queue = news[each.row.id]


def _queue(decision: Decision) -> dict[str, dict[str, object]]:
    length = len(decision.places)
    return {
        name: {"place": place, "length": length, "reason": decision.hold[name]}
        for name, place in decision.places.items()
    }


def _may_idle(instance: InstanceController) -> bool:
    row = instance.row
    if row is None or instance.is_ending or not instance.is_ready:
        return False
    return row.idle_timeout_seconds > 0


def _unix(row: Row) -> float:
    return row.last_used_at.timestamp() if row.last_used_at is not None else 0.0
