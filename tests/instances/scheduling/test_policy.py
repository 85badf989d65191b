"""Decisions about room, by table: no clock and no process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instances.scheduling.policy import (
    OPERATOR,
    CapacityLimits,
    Claim,
    Decision,
    Obstacle,
    PendingStart,
    Resident,
    decide,
    in_order,
    obstacle,
)

NOW = 100.0
ONE = CapacityLimits(max_running=1)


def idle(name: str, *, last_used: float = 50.0, group: str = "") -> Resident:
    return Resident(name, group, last_used=last_used)


def busy(name: str, requests: int = 1, *, ready_since: float = 0.0, group: str = "") -> Resident:
    return Resident(name, group, requests=requests, last_used=NOW, ready_since=ready_since)


def waits(name: str, since: float = 99.0, key: str = "k", *, group: str = "") -> PendingStart:
    return PendingStart(name, group, since=since, demand={key: since})


def boot(name: str, last_used: float) -> PendingStart:
    return PendingStart(name, is_boot_start=True, last_used=last_used)


def decision(
    limits: CapacityLimits, residents: list[Resident], wanted: list[PendingStart], **turns: float
) -> Decision:
    return decide(limits, residents, wanted, turns=turns, now=NOW)


def test_without_limits_every_start_is_granted_at_once() -> None:
    found = decision(CapacityLimits(), [busy("a")], [waits("b"), PendingStart("c")])
    assert set(found.start) == {"b", "c"}
    assert not found.hold


def test_free_capacity_is_granted_at_once_and_no_more() -> None:
    found = decision(CapacityLimits(max_running=2), [busy("a")], [waits("b", 98), waits("c", 99)])
    assert found.start == ("b",)
    assert found.places == {"c": 1}
    assert found.hold["c"].startswith("max_running_instances (2) is reached; waiting for a")


def test_the_least_recently_used_idle_instance_is_preempted_and_waited_for() -> None:
    residents = [idle("a", last_used=20), idle("b", last_used=10), busy("c")]
    found = decision(CapacityLimits(max_running=3), residents, [waits("d")])
    assert found.preempt == {"b": "d"}
    assert found.start == ()
    assert found.places == {"d": 1}


def test_no_other_is_preempted_while_a_preempted_instance_ends() -> None:
    residents = [Resident("a", is_ending=True), idle("b")]
    found = decision(CapacityLimits(max_running=2), residents, [waits("c")])
    assert found.preempt == {}
    assert "a (ending)" in found.hold["c"]


@pytest.mark.parametrize(
    "resident",
    [
        busy("a"),
        Resident("a", is_pinned=True),
        Resident("a", is_loading=True),
        Resident("a", requests=None),
        idle("a", last_used=NOW - 0.1),
    ],
    ids=["busy", "pinned", "loading", "unknown", "in a pause"],
)
def test_is_not_preempted(resident: Resident) -> None:
    found = decision(ONE, [resident], [waits("b")])
    assert (found.start, found.preempt) == ((), {})
    assert "a" in found.hold["b"]


@pytest.mark.parametrize(
    ("resident", "goes"),
    [
        (busy("a"), True),
        (idle("a", last_used=NOW), True),
        # It has not had its own time yet.
        (busy("a", ready_since=95), False),
        (Resident("a", requests=1, starts_on_demand=False), False),
        (Resident("a", requests=1, is_pinned=True), False),
        (Resident("a", requests=None), False),
    ],
)
def test_a_long_wait_preempts_a_busy_instance(resident: Resident, goes: bool) -> None:
    found = decision(ONE, [resident], [waits("b", since=90)])
    assert found.preempt == ({"a": "b"} if goes else {})


def test_idle_instances_are_preempted_before_busy_ones_however_long_the_wait() -> None:
    residents = [busy("a"), idle("b", last_used=NOW - 1)]
    assert decision(CapacityLimits(max_running=2), residents, [waits("c", 1)]).preempt == {"b": "c"}


def test_without_preemption_starts_within_the_limit_are_granted() -> None:
    limits = CapacityLimits(max_running=2, may_preempt=False)
    found = decision(limits, [idle("a")], [waits("b", 1), waits("c", 2)])
    assert (found.start, found.preempt) == (("b",), {})
    assert list(found.hold) == ["c"]


def test_a_group_limit_preempts_within_the_group() -> None:
    limits = CapacityLimits(max_running=3, groups={"big": 1})
    residents = [idle("small", last_used=1), idle("big-1", group="big")]
    found = decision(limits, residents, [waits("big-2", group="big"), waits("other")])
    assert found.preempt == {"big-1": "big-2"}
    assert found.start == ("other",)


def test_one_victim_is_enough_where_it_helps_with_both_limits() -> None:
    limits = CapacityLimits(max_running=2, groups={"big": 1})
    residents = [idle("small", last_used=1), idle("big-1", group="big")]
    assert decision(limits, residents, [waits("big-2", group="big")]).preempt == {"big-1": "big-2"}


def test_a_start_that_cannot_be_granted_reserves_nothing() -> None:
    limits = CapacityLimits(max_running=2, groups={"big": 1})
    residents = [busy("big-1", group="big"), idle("small")]
    found = decision(limits, residents, [waits("big-2", 98, group="big"), waits("c", 99)])
    assert found.preempt == {"small": "c"}
    assert found.hold["big-2"] == (
        "group_limits big (1) is reached; waiting for big-1 (1 request in flight)"
    )


def test_more_adopted_than_allowed_are_preempted_for_a_start_alone() -> None:
    residents = [idle("a"), idle("b", last_used=9), idle("c", last_used=8)]
    assert decision(ONE, residents, []).preempt == {}
    assert set(decision(CapacityLimits(max_running=2), residents, [waits("d")]).preempt) == {
        "b",
        "c",
    }
    # Where there are not enough, none goes for nothing.
    some = [busy("a"), busy("b"), idle("c")]
    assert decision(CapacityLimits(max_running=2), some, [waits("d")]).preempt == {}


def test_an_ending_instance_waits_behind_its_successor() -> None:
    residents = [Resident("a", is_ending=True, requests=1)]
    found = decision(ONE, residents, [waits("b", 10), waits("a", 20)])
    assert found.start == ()
    assert found.places == {"b": 1, "a": 2}
    assert found.hold["b"].endswith("waiting for a (1 request in flight)")


def test_after_a_boot_the_last_used_loads_first() -> None:
    wanted = [boot("old", 1), boot("new", 3), boot("middle", 2)]
    found = decision(CapacityLimits(), [], wanted)
    assert found.start == ("new",)
    assert found.places == {"middle": 1, "old": 2}
    assert "instances.loads_at_boot" in found.hold["middle"]
    loading = [Resident("new", is_loading=True)]
    assert decision(CapacityLimits(), loading, wanted[:1]).start == ()
    assert decision(CapacityLimits(loads_at_boot=2), loading, wanted[:1]).start == ("old",)
    assert decision(CapacityLimits(), [idle("new")], wanted[:1]).start == ("old",)


def test_a_boot_start_preempts_nothing_and_lets_requests_pass() -> None:
    found = decision(ONE, [idle("a")], [boot("b", 5), waits("c")])
    assert found.preempt == {"a": "c"}
    assert found.places == {"c": 1, "b": 2}
    assert decision(ONE, [idle("a")], [boot("b", 5)]).preempt == {}


def test_turns_go_round_between_keys_and_then_by_age() -> None:
    wanted = [waits("a", 1, "many"), waits("b", 2, "many"), waits("c", 5, "few")]
    assert [each.name for each in in_order(wanted, {})] == ["a", "b", "c"]
    # Once a key was given room, its others count as if they had come then.
    assert [each.name for each in in_order(wanted[1:], {"many": 6.0})] == ["c", "b"]
    # A later request stands behind them.
    later = [*wanted[1:], waits("d", 7, "new")]
    assert [each.name for each in in_order(later, {"many": 6.0})] == ["c", "b", "d"]


def test_an_instance_has_the_turn_of_its_oldest_request() -> None:
    both = PendingStart("a", since=1, demand={"many": 1, "few": 4})
    other = waits("b", 5, "third")
    assert in_order([other, both], {"many": 50.0})[0] is both


def test_a_start_by_hand_waits_since_its_request() -> None:
    by_hand = PendingStart("a", since=3)
    assert by_hand.waiters == {OPERATOR: 3}
    assert [each.name for each in in_order([waits("b", 4), by_hand], {})] == ["a", "b"]


def test_names_in_a_reason_are_bounded() -> None:
    residents = [busy(f"i{number}") for number in range(50)]
    reason = decision(CapacityLimits(max_running=50), residents, [waits("x")]).hold["x"]
    assert reason.endswith("and 45 more")


PINNED = Claim("p", is_pinned=True)


@pytest.mark.parametrize(
    ("limits", "claims", "wanted", "is_temporary"),
    [
        (ONE, [PINNED], Claim("x"), False),
        (CapacityLimits(max_running=0), [], Claim("x"), False),
        (CapacityLimits(groups={"g": 0}), [], Claim("x", "g"), False),
        (
            CapacityLimits(groups={"g": 1}),
            [Claim("p", "g", is_pinned=True)],
            Claim("x", "g"),
            False,
        ),
        (ONE, [replace(PINNED, stops_when_idle=True)], Claim("x"), True),
        (
            CapacityLimits(max_running=1, may_preempt=False),
            [Claim("a", stops_when_idle=True)],
            Claim("x"),
            True,
        ),
        (CapacityLimits(max_running=1, may_preempt=False), [Claim("a")], Claim("x"), False),
        (CapacityLimits(max_running=1, may_preempt=False), [PINNED], Claim("x"), False),
    ],
)
def test_a_start_that_can_never_be_granted_has_an_obstacle(
    limits: CapacityLimits, claims: list[Claim], wanted: Claim, is_temporary: bool
) -> None:
    found = obstacle(limits, claims, wanted)
    assert isinstance(found, Obstacle)
    assert found.is_temporary is is_temporary
    assert "reached" in found.reason


@pytest.mark.parametrize(
    ("limits", "claims", "wanted"),
    [
        (CapacityLimits(), [PINNED], Claim("x")),
        (ONE, [], Claim("x")),
        (ONE, [Claim("a")], Claim("x")),
        (CapacityLimits(max_running=2), [PINNED, Claim("a")], Claim("x")),
        (CapacityLimits(groups={"g": 1}), [PINNED], Claim("x", "g")),
        (CapacityLimits(groups={"g": -1}), [Claim("p", "g", is_pinned=True)], Claim("x", "g")),
        # Without eviction, what fits still starts.
        (CapacityLimits(max_running=2, may_preempt=False), [PINNED], Claim("x")),
    ],
)
def test_a_start_that_can_be_granted_has_no_obstacle(
    limits: CapacityLimits, claims: list[Claim], wanted: Claim
) -> None:
    assert obstacle(limits, claims, wanted) is None
