"""Scheduling policy: the starts that are granted, and the instances preempted for them.

Pure functions over small values: no clock, no process, no database. The node's scheduler calls
``decide`` for the next moves. A request for a start calls ``obstacle`` first, which finds a start
that can never be granted. ``docs/adr/0007-capacity.md`` has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamactl.config.schema import InstancesConfig

OPERATOR = "operator"
"""Key of a start by hand, for which no request waits."""
LINGER_SECONDS = 0.5
"""A pause between two requests of one client is no idleness, as long as others can wait."""
NAMES_IN_A_REASON = 5


@dataclass(frozen=True)
class CapacityLimits:
    """The configured capacity of a node."""

    max_running: int = -1
    groups: Mapping[str, int] = field(default_factory=dict)
    """Group → most running instances; -1, or no entry, for any number."""
    may_preempt: bool = True
    why_no_preemption: str = "instances.enable_lru_eviction is off"
    """For reasons, where ``may_preempt`` is false."""
    swap_after_seconds: float = 10.0
    """Longest wait for a pause of a busy instance, before it is preempted."""
    loads_at_boot: int = 1

    @property
    def are_set(self) -> bool:
        return self.max_running >= 0 or any(limit >= 0 for limit in self.groups.values())

    def without_preemption(self) -> CapacityLimits:
        """Return the limits for a request that may have no instance stopped."""
        if not self.may_preempt:
            return self
        why = "the key may not have another instance stopped for this one (can_evict)"
        return replace(self, may_preempt=False, why_no_preemption=why)


def limits_of(config: InstancesConfig) -> CapacityLimits:
    return CapacityLimits(
        max_running=config.max_running_instances,
        groups=config.group_limits,
        may_preempt=config.enable_lru_eviction,
        swap_after_seconds=config.swap_after,
        loads_at_boot=config.loads_at_boot,
    )


@dataclass(frozen=True)
class Claim:
    """An instance that runs, or is to run."""

    name: str
    group: str = ""
    is_pinned: bool = False
    """Never preempted."""
    stops_when_idle: bool = False
    """Has an idle timeout."""


@dataclass(frozen=True)
class Resident(Claim):
    """An instance that takes up capacity."""

    is_loading: bool = False
    """Not ready, or not all web processes know of its readiness."""
    is_ending: bool = False
    requests: int | None = 0
    """In flight and waiting; ``None`` for an unknown number."""
    starts_on_demand: bool = True
    """A request starts the instance again, so it may be preempted while it is busy."""
    last_used: float = 0.0
    ready_since: float = 0.0

    @property
    def is_busy(self) -> bool:
        return self.requests is None or self.requests > 0


@dataclass(frozen=True)
class PendingStart:
    """A requested start that is not granted yet."""

    name: str
    group: str = ""
    since: float = 0.0
    """Time of the request."""
    demand: Mapping[str, float] = field(default_factory=dict)
    """Key → time since which its oldest request waits for the instance."""
    is_boot_start: bool = False
    """The instance ran before the host was restarted, and no start was requested since."""
    may_preempt: bool = True
    """A waiting request or an operator is known; otherwise all waiting clients may be gone."""
    last_used: float = 0.0

    @property
    def waiters(self) -> Mapping[str, float]:
        return self.demand or {OPERATOR: self.since}

    @property
    def oldest(self) -> float:
        return min(self.waiters.values())


@dataclass(frozen=True)
class Decision:
    """The next moves; each pending start is in ``start`` or in ``hold``."""

    start: tuple[str, ...] = ()
    preempt: Mapping[str, str] = field(default_factory=dict)
    """Preempted instance → the instance that gets its capacity."""
    hold: Mapping[str, str] = field(default_factory=dict)
    """Waiting instance → reason, in words."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Waiting instance → place in the queue, from 1."""


@dataclass(frozen=True)
class Obstacle:
    """The reason why a start can never be granted."""

    reason: str
    is_temporary: bool
    """Whether an idle stop of another instance would remove the obstacle."""


def decide(
    limits: CapacityLimits,
    residents: Sequence[Resident],
    pending: Sequence[PendingStart],
    *,
    turns: Mapping[str, float],
    now: float,
) -> Decision:
    """Return the next moves. ``turns``: key → time of its last granted start.

    For each pending start, in the order of ``in_order``:

    1. Reserve capacity, if the limits allow the start after all ending instances have ended.
    2. Otherwise preempt enough others. If too few can be preempted, the start waits and reserves
       nothing.
    3. Grant the start if the capacity is free already; otherwise it waits.

    Boot starts (``is_boot_start``) come last and are granted a few at a time. They preempt no
    instance and reserve no capacity.
    """
    plan = _Plan(limits, residents, now)
    queue = in_order(pending, turns)
    for each in queue:
        plan.add(each)
    waiting = [each.name for each in queue if each.name in plan.hold]
    places = {name: place for place, name in enumerate(waiting, 1)}
    return Decision(tuple(plan.start), plan.preempt, plan.hold, places)


class _Plan:
    """The moves that are decided so far, and the capacity that they leave."""

    def __init__(self, limits: CapacityLimits, residents: Sequence[Resident], now: float) -> None:
        self.start: list[str] = []
        self.preempt: dict[str, str] = {}
        self.hold: dict[str, str] = {}
        self._limits = limits
        self._now = now
        self._resident_names = {each.name for each in residents}
        self._present: list[Claim] = list(residents)
        self._future: list[Claim] = [each for each in residents if not each.is_ending]
        """The claims after all ending instances have ended."""
        self._loading = sum(each.is_loading and not each.is_ending for each in residents)

    def add(self, pending: PendingStart) -> None:
        """Decide on the next pending start of the queue."""
        limits, name = self._limits, pending.name
        claim = Claim(name, pending.group)
        if not _fits(limits, claim, self._future) and not self._preempt_for(pending):
            self.hold[name] = _why_full(limits, claim, self._future)
            return
        if pending.is_boot_start and self._loading >= limits.loads_at_boot:
            self.hold[name] = f"{self._loading} loading (instances.loads_at_boot)"
            return
        if name in self._resident_names or not _fits(limits, claim, self._present):
            self.hold[name] = _why_full(limits, claim, self._present)
        else:
            self.start.append(name)
            self._present.append(claim)
            self._loading += 1
        if not pending.is_boot_start:
            self._future.append(claim)

    def _preempt_for(self, pending: PendingStart) -> bool:
        """Preempt enough others; returns ``False`` if too few can be preempted."""
        if not pending.may_preempt or pending.is_boot_start:
            return False
        victims = _victims(self._limits, pending, self._future, self._now)
        if victims is None:
            return False
        self._future = [each for each in self._future if each not in victims]
        self.preempt |= {victim.name: pending.name for victim in victims}
        return True


def in_order(pending: Iterable[PendingStart], turns: Mapping[str, float]) -> list[PendingStart]:
    """Order the queue: by fair turns between keys, then by age; boot starts by their last use.

    After a grant a key moves to the end of the queue: its other requests count as if they had come
    in that moment. So a key that asks for many instances gets one in a turn. No later request goes
    before an earlier one of another key, so each request reaches the front.
    """

    def rank(each: PendingStart) -> tuple[bool, float, float, str]:
        if each.is_boot_start:
            return True, -each.last_used, 0.0, each.name
        turn = min(max(since, turns.get(key, since)) for key, since in each.waiters.items())
        return False, turn, each.oldest, each.name

    return sorted(pending, key=rank)


def obstacle(limits: CapacityLimits, claims: Sequence[Claim], wanted: Claim) -> Obstacle | None:
    """Return the obstacle that keeps ``wanted`` from ever being granted; ``None`` without one.

    ``claims``: the other instances that run or are to run. Pinned instances keep their capacity,
    and without preemption all do, until an idle timeout or an operator stops them.
    """
    lasting = [each for each in claims if each.is_pinned or not limits.may_preempt]
    if _fits(limits, wanted, lasting):
        return None
    reason = _why_full(limits, wanted, lasting)
    if not limits.may_preempt:
        reason += f"; {limits.why_no_preemption}"
    endless = [each for each in lasting if not each.stops_when_idle]
    return Obstacle(reason, is_temporary=_fits(limits, wanted, endless))


def _fits(limits: CapacityLimits, wanted: Claim, others: Sequence[Claim]) -> bool:
    return _missing(limits.max_running, others) <= 0 and (
        _missing(_group_limit(limits, wanted), _members(wanted, others)) <= 0
    )


def _missing(limit: int, others: Sequence[Claim]) -> int:
    """Count the others that must end so that one more is within the limit."""
    return len(others) + 1 - limit if limit >= 0 else 0


def _group_limit(limits: CapacityLimits, wanted: Claim) -> int:
    return limits.groups.get(wanted.group, -1) if wanted.group else -1


def _members(wanted: Claim, others: Sequence[Claim]) -> list[Claim]:
    return [each for each in others if each.group == wanted.group]


def _victims(
    limits: CapacityLimits, pending: PendingStart, future: Sequence[Claim], now: float
) -> list[Resident] | None:
    """Choose the instances to preempt: idle before busy ones, the least recently used first.

    ``None`` if too few can be preempted. Preempted members of the same group count for both limits.
    """
    claim = Claim(pending.name, pending.group)
    able = sorted(
        (
            each
            for each in future
            if isinstance(each, Resident) and _can_be_preempted(limits, each, pending, now)
        ),
        key=lambda each: (each.is_busy, each.last_used, each.name),
    )
    of_group = _missing(_group_limit(limits, claim), _members(claim, future))
    members = [each for each in able if each.group == pending.group]
    victims = members[: max(0, of_group)]
    in_all = max(0, _missing(limits.max_running, future) - len(victims))
    victims += [each for each in able if each not in victims][:in_all]
    rest = [each for each in future if each not in victims]
    return victims if _fits(limits, claim, rest) else None


def _can_be_preempted(
    limits: CapacityLimits, resident: Resident, pending: PendingStart, now: float
) -> bool:
    """Whether the resident may be preempted for ``pending`` at this moment.

    A resident that was just loaded serves its waiting requests first. A busy resident is preempted
    (it takes no new requests, and answers the requests in flight) once ``pending`` has waited for
    ``swap_after`` and the resident has been ready for as long. Without the second condition, models
    that load for longer than ``swap_after`` would be loaded all the time and answer nothing.
    """
    if not limits.may_preempt or resident.is_pinned or resident.is_loading or resident.is_ending:
        return False
    is_early = now - max(pending.oldest, resident.ready_since) < limits.swap_after_seconds
    if resident.is_busy:
        return resident.starts_on_demand and resident.requests is not None and not is_early
    return not is_early or now - resident.last_used >= LINGER_SECONDS


def _why_full(limits: CapacityLimits, wanted: Claim, others: Sequence[Claim]) -> str:
    limit = _group_limit(limits, wanted)
    members = _members(wanted, others)
    if _missing(limit, members) > 0:
        return f"group_limits {wanted.group} ({limit}) is reached{_waiting_for(members)}"
    if _missing(limits.max_running, others) > 0:
        return f"max_running_instances ({limits.max_running}) is reached{_waiting_for(others)}"
    return "its last process has not ended yet"


def _waiting_for(others: Sequence[Claim]) -> str:
    """``; waiting for demo (2 requests in flight), other (loading) and 3 more``."""
    if not others:
        return ""
    names = [f"{each.name}{_state_of(each)}" for each in others[:NAMES_IN_A_REASON]]
    more = len(others) - len(names)
    return f"; waiting for {', '.join(names)}{f' and {more} more' if more else ''}"


def _state_of(claim: Claim) -> str:
    if not isinstance(claim, Resident):
        return " (pinned: never preempted)" if claim.is_pinned else ""
    if claim.is_ending and not claim.requests:
        return " (ending)"
    if claim.is_pinned:
        return " (pinned: never preempted)"
    if claim.is_loading:
        return " (loading)"
    if claim.requests:
        return f" ({claim.requests} request{'' if claim.requests == 1 else 's'} in flight)"
    return ""
