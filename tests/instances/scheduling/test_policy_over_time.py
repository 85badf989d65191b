"""Many decisions in a row, on a simulated node: limits and turns."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from instances.scheduling.policy import CapacityLimits, PendingStart, Resident, decide

TICK = 0.25


@dataclass
class Request:
    at: float
    key: str
    name: str
    seconds: float
    served_at: float | None = None
    done_at: float = 0.0


@dataclass
class Simulated:
    """A node with loads of ``load_seconds``, and clients without a timeout."""

    limits: CapacityLimits
    requests: list[Request]
    groups: dict[str, str] = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()
    load_seconds: float = 2.0
    now: float = 0.0
    ready_at: dict[str, float] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    last_used: dict[str, float] = field(default_factory=dict)
    turns: dict[str, float] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)

    def in_flight(self, name: str) -> int:
        return sum(
            each.name == name and each.served_at is not None and each.done_at > self.now
            for each in self.requests
        )

    def waiting(self, name: str) -> list[Request]:
        return [
            each
            for each in self.requests
            if each.name == name and each.at <= self.now and each.served_at is None
        ]

    def step(self) -> None:
        self.serve()
        self.ending -= {name for name in self.ending if not self.in_flight(name) and self.end(name)}
        residents = [
            Resident(
                name,
                self.groups.get(name, ""),
                is_pinned=name in self.pinned,
                is_loading=ready_at > self.now,
                is_ending=name in self.ending,
                requests=self.in_flight(name),
                last_used=max(self.last_used.get(name, 0.0), ready_at),
                ready_since=ready_at,
            )
            for name, ready_at in self.ready_at.items()
        ]
        wanted = []
        for name in sorted({each.name for each in self.requests}):
            queue = self.waiting(name)
            if queue and (name not in self.ready_at or name in self.ending):
                demand: dict[str, float] = {}
                for each in queue:
                    demand[each.key] = min(each.at, demand.get(each.key, each.at))
                wanted.append(
                    PendingStart(name, self.groups.get(name, ""), min(demand.values()), demand)
                )
        found = decide(self.limits, residents, wanted, turns=self.turns, now=self.now)
        assert set(found.start) | set(found.hold) == {each.name for each in wanted}
        assert not set(found.start) & set(found.hold)
        assert sorted(found.places.values()) == list(range(1, len(found.hold) + 1))
        for name, beneficiary in found.preempt.items():
            self.check_evictable(name, next(w for w in wanted if w.name == beneficiary))
            self.ending.add(name)
        for name in found.start:
            self.ready_at[name] = self.now + self.load_seconds
            self.loads.append(name)
            for each in self.waiting(name):
                self.turns[each.key] = self.now
        self.check_limits()
        self.now += TICK

    def serve(self) -> None:
        for name, ready_at in self.ready_at.items():
            if ready_at <= self.now and name not in self.ending:
                for each in self.waiting(name):
                    each.served_at = self.now
                    each.done_at = self.now + each.seconds
                    self.last_used[name] = max(self.last_used.get(name, 0.0), each.done_at)

    def end(self, name: str) -> bool:
        del self.ready_at[name]
        return True

    def check_limits(self) -> None:
        assert self.limits.max_running < 0 or len(self.ready_at) <= self.limits.max_running
        for group, limit in self.limits.groups.items():
            assert sum(self.groups.get(name) == group for name in self.ready_at) <= limit

    def check_evictable(self, name: str, wanted: PendingStart) -> None:
        assert name not in self.pinned
        assert self.ready_at[name] <= self.now
        if self.in_flight(name):
            assert self.now - wanted.oldest >= self.limits.swap_after_seconds

    def run(self, seconds: float) -> None:
        while self.now < seconds and any(each.served_at is None for each in self.requests):
            self.step()


def loads_of(text: str, **limits: float) -> list[str]:
    requests = [
        Request(at=number * 0.01, key="k", name=name, seconds=3.0)
        for number, name in enumerate(text.split())
    ]
    node = Simulated(CapacityLimits(max_running=1, **limits), requests)  # type: ignore[arg-type]
    node.run(1000)
    assert all(each.served_at is not None for each in requests)
    return node.loads


def test_a_mixed_burst_is_answered_model_by_model() -> None:
    assert loads_of("A B A A C A B") == ["A", "B", "C"]


def test_a_mixed_burst_is_answered_model_by_model_however_impatient() -> None:
    assert loads_of("A B A A C A B", swap_after_seconds=0.0) == ["A", "B", "C"]


def test_a_waiting_request_is_not_starved_by_traffic_without_pauses() -> None:
    endless = [Request(number * 0.5, "many", "A", 2.0) for number in range(400)]
    patient = Request(1.0, "few", "B", 1.0)
    node = Simulated(CapacityLimits(max_running=1), [*endless, patient])
    node.run(100)
    # swap_after, the longest response, the end and the load, and a few ticks.
    assert patient.served_at is not None
    assert patient.served_at <= 1.0 + 2.0 + 10.0 + 2.0 + 2.0 + 2.0


def test_pauses_between_requests_of_one_client_cause_no_swap() -> None:
    requests = [
        Request(number * 0.5, name, name, 0.3) for number in range(200) for name in ("A", "B")
    ]
    node = Simulated(CapacityLimits(max_running=1), requests)
    node.run(100)
    # Each has its swap_after of 10 s; without, there would be a load for every few requests.
    assert len(node.loads) <= 12


def test_a_key_that_wants_many_instances_has_one_turn_in_two() -> None:
    many = [Request(0.0, "many", f"M{number}", 1.0) for number in range(10)]
    few = [Request(0.1, "few", f"F{number}", 1.0) for number in range(3)]
    node = Simulated(CapacityLimits(max_running=1), [*many, *few], now=1.0)
    node.run(1000)
    assert [name[0] for name in node.loads] == list("MFMFMF" + "M" * 7)


@st.composite
def simulations(draw: st.DrawFn) -> Simulated:
    names = [f"i{number}" for number in range(draw(st.integers(2, 5)))]
    requests = draw(
        st.lists(
            st.builds(
                Request,
                at=st.floats(0, 30),
                key=st.sampled_from(["k1", "k2", "k3"]),
                name=st.sampled_from(names),
                seconds=st.floats(0, 8),
            ),
            min_size=1,
            max_size=25,
        )
    )
    groups = draw(st.dictionaries(st.sampled_from(names), st.sampled_from(["g", "h"])))
    limits = CapacityLimits(
        max_running=draw(st.integers(1, 3)),
        groups=draw(st.dictionaries(st.sampled_from(["g", "h"]), st.integers(1, 2))),
        swap_after_seconds=draw(st.sampled_from([0.0, 2.0, 10.0])),
    )
    return Simulated(limits, requests, groups)


@given(simulations())
def test_every_request_is_served_in_bounded_time_and_the_limits_hold(node: Simulated) -> None:
    node.run(10_000)
    names = {each.name for each in node.requests}
    # Each turn costs at most: swap_after, the longest response, an end and a load.
    turn = node.limits.swap_after_seconds + 8.0 + node.load_seconds + 4 * TICK + 1.0
    for each in node.requests:
        assert each.served_at is not None
        assert each.served_at - each.at <= turn * (len(names) ** 2 + 1)


@given(simulations(), st.sets(st.sampled_from(["i0", "i1"])))
def test_pinned_ones_stay_and_the_limits_hold(node: Simulated, pinned: set[str]) -> None:
    node.pinned = frozenset(pinned)
    node.run(120)
