"""Which of those that want to run may start now, and who has to make room for them?

Pure functions over small values: no clock, no process, no database. The node's supervisor asks
``decide`` for the next moves, whoever writes a wish asks ``obstacle`` whether it can ever come
true. ``docs/adr/0007-capacity.md`` has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamactl.config.schema import InstancesConfig

OPERATOR = "operator"
"""Whose turn it is where no request waits: a start by hand."""
LINGER_SECONDS = 0.5
"""A pause between two requests of one client is not yet idleness, as long as others can wait."""
NAMES_IN_A_REASON = 5


@dataclass(frozen=True)
class CapacityLimits:
    """What the configuration says about a node."""

    max_running: int = -1
    groups: Mapping[str, int] = field(default_factory=dict)
    """Group → how many of it may run; -1 and a group that isn't named: any number."""
    may_evict: bool = True
    swap_after_seconds: float = 10.0
    """How long requests wait for a busy instance to have a pause before it must make room."""
    loads_at_boot: int = 1

    @property
    def are_set(self) -> bool:
        return self.max_running >= 0 or any(limit >= 0 for limit in self.groups.values())


def limits_of(config: InstancesConfig) -> CapacityLimits:
    return CapacityLimits(
        max_running=config.max_running_instances,
        groups=config.group_limits,
        may_evict=config.enable_lru_eviction,
        swap_after_seconds=config.swap_after,
        loads_at_boot=config.loads_at_boot,
    )


@dataclass(frozen=True)
class Claim:
    """An instance that runs, or is wished to."""

    name: str
    group: str = ""
    is_pinned: bool = False
    """It never makes room: its ``idle_timeout`` is 0."""


@dataclass(frozen=True)
class Resident(Claim):
    """An instance that takes up room."""

    is_loading: bool = False
    """It is not ready, or not every web process has seen that it is."""
    is_ending: bool = False
    requests: int | None = 0
    """In flight and waiting for it; ``None``: nobody can say."""
    comes_back: bool = True
    """A request brings it back, so the requests to come may be made to wait."""
    last_used: float = 0.0
    ready_since: float = 0.0

    @property
    def is_busy(self) -> bool:
        return self.requests is None or self.requests > 0


@dataclass(frozen=True)
class Wanted:
    """An instance that is wished to run and has no room yet."""

    name: str
    group: str = ""
    since: float = 0.0
    """When it was wished."""
    demand: Mapping[str, float] = field(default_factory=dict)
    """Key → since when its oldest request waits for the instance."""
    is_boot: bool = False
    """It ran before the host or the worker was restarted, and nobody has asked for it since."""
    is_certain: bool = True
    """Somebody waits for it; else it may be that all have given up, and nobody makes room."""
    last_used: float = 0.0

    @property
    def waiters(self) -> Mapping[str, float]:
        return self.demand or {OPERATOR: self.since}

    @property
    def oldest(self) -> float:
        return min(self.waiters.values())


@dataclass(frozen=True)
class Decision:
    """The next moves; each instance of ``wanted`` is in ``start`` or in ``hold``."""

    start: tuple[str, ...] = ()
    evict: Mapping[str, str] = field(default_factory=dict)
    """Who is to make room → for whom."""
    hold: Mapping[str, str] = field(default_factory=dict)
    """Who has to wait → why, in words."""
    places: Mapping[str, int] = field(default_factory=dict)
    """The queue: name → place, from 1."""


@dataclass(frozen=True)
class Obstacle:
    """Why there can be no room."""

    reason: str
    may_pass: bool
    """Whether an instance that stops for idleness would change that."""


def decide(
    limits: CapacityLimits,
    residents: Sequence[Resident],
    wanted: Sequence[Wanted],
    *,
    turns: Mapping[str, float],
    now: float,
) -> Decision:
    """The next moves. ``turns``: key → when it last was given room.

    One after the other, in the order of ``in_order``:

    1. If the limits allow it once those that are ending have ended, it gets that room.
    2. Else, enough others have to make room for it; where there are not enough that can, it waits
       and takes nothing from those behind it.
    3. It starts if the room is there already, and waits for it otherwise.

    Those that ran before a restart (``is_boot``) come last, start a few at a time, and neither make
    others go nor keep room from others.
    """
    present: list[Claim] = list(residents)
    future: list[Claim] = [each for each in residents if not each.is_ending]
    loading = sum(each.is_loading and not each.is_ending for each in residents)
    here = {each.name for each in residents}
    start: list[str] = []
    evict: dict[str, str] = {}
    hold: dict[str, str] = {}
    queue = in_order(wanted, turns)
    for each in queue:
        claim = Claim(each.name, each.group)
        if not _fits(limits, claim, future):
            may_ask = each.is_certain and not each.is_boot
            victims = _victims(limits, each, future, now) if may_ask else None
            if victims is None:
                hold[each.name] = _why_full(limits, claim, future)
                continue
            future = [other for other in future if other not in victims]
            evict |= {victim.name: each.name for victim in victims}
        if each.is_boot and loading >= limits.loads_at_boot:
            hold[each.name] = f"{loading} loading (instances.loads_at_boot)"
            continue
        if each.name in here or not _fits(limits, claim, present):
            hold[each.name] = _why_full(limits, claim, present)
        else:
            start.append(each.name)
            present.append(claim)
            loading += 1
        if not each.is_boot:
            future.append(claim)
    places = {
        name: place for place, name in enumerate((e.name for e in queue if e.name in hold), 1)
    }
    return Decision(tuple(start), evict, hold, places)


def in_order(wanted: Iterable[Wanted], turns: Mapping[str, float]) -> list[Wanted]:
    """Who is next: by fair turns between keys, then by age; those of a boot by their last use.

    A key that was given room goes to the end of the line: its other waiters count as if they had
    come in that moment. So one that wants many instances gets one of them in a turn, and since
    whoever comes later stands behind, every waiter comes to the front.
    """

    def rank(each: Wanted) -> tuple[bool, float, float, str]:
        if each.is_boot:
            return True, -each.last_used, 0.0, each.name
        turn = min(max(since, turns.get(key, since)) for key, since in each.waiters.items())
        return False, turn, each.oldest, each.name

    return sorted(wanted, key=rank)


def obstacle(limits: CapacityLimits, claims: Sequence[Claim], wanted: Claim) -> Obstacle | None:
    """What keeps ``wanted`` from ever getting room; ``None`` if nothing does.

    ``claims``: the others that run or are wished to. Those that never make room have theirs for
    good, and without eviction all do.
    """
    pinned = [each for each in claims if each.is_pinned]
    lasting = pinned if limits.may_evict else list(claims)
    if _fits(limits, wanted, lasting):
        return None
    reason = _why_full(limits, wanted, lasting)
    if limits.may_evict:
        return Obstacle(reason, may_pass=False)
    reason += "; instances.enable_lru_eviction is off"
    return Obstacle(reason, may_pass=_fits(limits, wanted, pinned))


def _fits(limits: CapacityLimits, wanted: Claim, others: Sequence[Claim]) -> bool:
    return _missing(limits.max_running, others) <= 0 and (
        _missing(_group_limit(limits, wanted), _members(wanted, others)) <= 0
    )


def _missing(limit: int, others: Sequence[Claim]) -> int:
    """How many of the others have to go so that one more is within the limit."""
    return len(others) + 1 - limit if limit >= 0 else 0


def _group_limit(limits: CapacityLimits, wanted: Claim) -> int:
    return limits.groups.get(wanted.group, -1) if wanted.group else -1


def _members(wanted: Claim, others: Sequence[Claim]) -> list[Claim]:
    return [each for each in others if each.group == wanted.group]


def _victims(
    limits: CapacityLimits, wanted: Wanted, future: Sequence[Claim], now: float
) -> list[Resident] | None:
    """Who makes room for ``wanted``: the idle before the busy, the least recently used first.

    ``None`` if too few can. Members of its own group that have to go count for both limits.
    """
    claim = Claim(wanted.name, wanted.group)
    able = sorted(
        (
            each
            for each in future
            if isinstance(each, Resident) and _can_go(limits, each, wanted, now)
        ),
        key=lambda each: (each.is_busy, each.last_used, each.name),
    )
    of_group = _missing(_group_limit(limits, claim), _members(claim, future))
    members = [each for each in able if each.group == wanted.group]
    victims = members[: max(0, of_group)]
    in_all = max(0, _missing(limits.max_running, future) - len(victims))
    victims += [each for each in able if each not in victims][:in_all]
    rest = [each for each in future if each not in victims]
    return victims if _fits(limits, claim, rest) else None


def _can_go(limits: CapacityLimits, resident: Resident, wanted: Wanted, now: float) -> bool:
    """Whether the resident may be made to go for ``wanted`` at this moment.

    What has just been loaded serves those it was loaded for first. A busy one may be interrupted
    (it takes no new requests, and answers those it has) once ``wanted`` has waited long enough, and
    once it has itself had so long: else, where loading takes longer than that, nothing but loading
    would be done.
    """
    if not limits.may_evict or resident.is_pinned or resident.is_loading or resident.is_ending:
        return False
    has_patience = now - max(wanted.oldest, resident.ready_since) < limits.swap_after_seconds
    if resident.is_busy:
        return resident.comes_back and resident.requests is not None and not has_patience
    return not has_patience or now - resident.last_used >= LINGER_SECONDS


def _why_full(limits: CapacityLimits, wanted: Claim, others: Sequence[Claim]) -> str:
    limit = _group_limit(limits, wanted)
    members = _members(wanted, others)
    if _missing(limit, members) > 0:
        return f"group_limits {wanted.group} ({limit}) is reached{_waiting_for(members)}"
    if _missing(limits.max_running, others) > 0:
        return f"max_running_instances ({limits.max_running}) is reached{_waiting_for(others)}"
    return "it is about to end first"


def _waiting_for(others: Sequence[Claim]) -> str:
    """``; waiting for demo (2 requests), other (never makes room) and 3 more``."""
    if not others:
        return ""
    names = [f"{each.name}{_state_of(each)}" for each in others[:NAMES_IN_A_REASON]]
    more = len(others) - len(names)
    return f"; waiting for {', '.join(names)}{f' and {more} more' if more else ''}"


def _state_of(claim: Claim) -> str:
    if not isinstance(claim, Resident):
        return " (idle_timeout 0: never makes room)" if claim.is_pinned else ""
    if claim.is_ending and not claim.requests:
        return " (ending)"
    if claim.is_pinned:
        return " (idle_timeout 0: never makes room)"
    if claim.is_loading:
        return " (loading)"
    if claim.requests:
        return f" ({claim.requests} request{'' if claim.requests == 1 else 's'} in flight)"
    return ""
