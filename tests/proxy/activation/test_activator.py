"""Activation: fair turns, the report on waiting requests, and restarts after a preemption."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from instances.errors import (
    BackendStartFailed,
    BackendStartTimeout,
    InstanceNotRunning,
    InstanceShuttingDown,
    StartNotPermitted,
    StoppedByOperator,
)
from instances.states import EVICTED, IDLE, ON_DEMAND, DesiredState, Status
from proxy.activation.activator import Activator
from proxy.table.live import LiveTable
from proxy.table.recheck import Recheck
from proxy.table.table import KeyRule, RoutingTable, Target
from tests.proxy.conftest import make_target

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Activation:
    """An activator whose table is laid by the test."""

    def __init__(self) -> None:
        self.live = LiveTable()
        self.changes = 0
        self.starts = 0
        self.evicting: list[bool] = []
        self.generation = 1
        self.activator = Activator(
            self.live,
            self._start,
            Recheck(self.live, self._refresh),
            timeout_seconds=5,
            on_change=self._count_change,
            now=lambda: NOW,
        )

    def lay(self, **changes: Any) -> Target:
        target = make_target("http://x", **{"generation": self.generation, **changes})
        self.live.replace(RoutingTable(targets={target.name: target}))
        return target

    def stopped(self, **changes: Any) -> Target:
        return self.lay(
            **{"status": Status.STOPPED, "desired_state": DesiredState.STOPPED, **changes}
        )

    def starting(self, **changes: Any) -> Target:
        return self.lay(status=Status.STARTING, observed_generation=self.generation, **changes)

    async def _start(self, name: str, *, may_evict: bool) -> int:
        self.starts += 1
        self.evicting.append(may_evict)
        self.generation += 1
        self.starting()
        return self.generation

    async def _refresh(self) -> None:
        """The table is up to date already."""

    def _count_change(self) -> None:
        self.changes += 1


@pytest.fixture
def activation() -> Iterator[Activation]:
    activation = Activation()
    yield activation
    assert activation.activator.waiters.report() == {}


def rule_of(key_id: int | None, **rights: Any) -> KeyRule:
    return KeyRule(key_id, b"", None, **rights)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_waiters_go_on_in_fair_turns_between_keys(activation: Activation) -> None:
    target = activation.starting()
    released: list[int] = []

    async def one(key_id: int) -> None:
        await activation.activator.activate(target, rule_of(key_id))
        released.append(key_id)

    tasks = [asyncio.create_task(one(1)) for _ in range(50)]
    await settle()
    tasks += [asyncio.create_task(one(2)) for _ in range(5)]
    await settle()
    activation.lay(observed_generation=1)
    await asyncio.gather(*tasks)
    assert released[:11] == [1, 2] * 5 + [1]
    assert released.count(1) == 50


async def test_report_counts_by_key_from_the_first_to_the_last_that_waits(
    activation: Activation,
) -> None:
    target = activation.starting()
    tasks = [
        asyncio.create_task(activation.activator.activate(target, rule_of(key)))
        for key in (7, 7, None)
    ]
    await settle()
    report = activation.activator.waiters.report()
    assert {key: count for key, (count, _) in report["demo"].items()} == {"7": 2, "": 1}
    assert activation.changes == 1
    oldest = report["demo"]["7"][1]
    tasks[0].cancel()
    await settle()
    assert activation.activator.waiters.report()["demo"]["7"][0] == 1
    assert activation.activator.waiters.report()["demo"]["7"][1] >= oldest
    for task in tasks[1:]:
        task.cancel()
    await settle()
    assert activation.activator.waiters.report() == {}
    assert activation.changes == 2


async def test_key_without_the_right_starts_nothing_but_waits_for_a_start(
    activation: Activation,
) -> None:
    target = activation.stopped()
    may_not = rule_of(1, startable_ids=frozenset({target.id + 1}))
    with pytest.raises(StartNotPermitted):
        await activation.activator.activate(target, may_not)
    assert activation.starts == 0
    starting = activation.starting()
    task = asyncio.create_task(activation.activator.activate(starting, may_not))
    await settle()
    ready = activation.lay(observed_generation=1)
    assert await task == ready


async def test_start_and_report_say_whether_another_instance_may_be_evicted(
    activation: Activation,
) -> None:
    target = activation.stopped()
    waiters = activation.activator.waiters
    may_not = rule_of(1, evicting_ids=frozenset())
    tasks = [asyncio.create_task(activation.activator.activate(target, may_not))]
    await settle()
    assert (waiters.not_evicting(), activation.changes) == (["demo"], 1)
    tasks += [
        asyncio.create_task(activation.activator.activate(target, rule_of(number)))
        for number in (2, 3)
    ]
    await settle()
    assert (waiters.not_evicting(), activation.changes) == ([], 2)
    assert activation.evicting == [False]
    for task in tasks:
        task.cancel()
    await settle()


async def test_ready_instance_is_not_waited_for(activation: Activation) -> None:
    target = activation.lay()
    assert await activation.activator.activate(target) is target
    assert activation.changes == 0


async def test_request_counts_as_waiting_before_it_requests_the_start(
    activation: Activation,
) -> None:
    # The supervisor withdraws the request for a start if no waiter is reported.
    seen = []

    async def start(name: str, *, may_evict: bool) -> int:
        seen.append(dict(activation.activator.waiters.report()))
        activation.starting()
        return activation.generation

    activation.activator._request_start = start
    task = asyncio.create_task(activation.activator.activate(activation.stopped()))
    await settle()
    assert [list(each) for each in seen] == [["demo"]]
    activation.lay()
    await task


@pytest.mark.parametrize("cause", [EVICTED, IDLE])
@pytest.mark.parametrize("status", [Status.SHUTTING_DOWN, Status.RUNNING, Status.STOPPED])
async def test_preempted_or_idle_instance_is_started_again_and_waited_for(
    activation: Activation, status: Status, cause: str
) -> None:
    target = activation.stopped(status=status, requested_by=cause)
    task = asyncio.create_task(activation.activator.activate(target))
    await settle()
    assert activation.starts == 1
    activation.lay(observed_generation=activation.generation)
    assert (await task).is_ready


@pytest.mark.parametrize("cause", ["api", "admin:bob", ""])
@pytest.mark.parametrize("status", [Status.SHUTTING_DOWN, Status.RUNNING])
async def test_instance_that_an_operator_stops_is_not_waited_for(
    activation: Activation, status: Status, cause: str
) -> None:
    target = activation.stopped(status=status, requested_by=cause)
    with pytest.raises(InstanceShuttingDown):
        await activation.activator.activate(target)
    assert activation.starts == 0


async def test_preempted_instance_without_on_demand_start_is_not_started_again(
    activation: Activation,
) -> None:
    gone = {"requested_by": EVICTED, "on_demand_start": False}
    with pytest.raises(InstanceShuttingDown):
        await activation.activator.activate(activation.stopped(status=Status.SHUTTING_DOWN, **gone))
    with pytest.raises(InstanceNotRunning):
        await activation.activator.activate(activation.stopped(**gone))


async def test_operators_stop_is_not_undone_by_requests(activation: Activation) -> None:
    held = {"stop_hold_until": NOW + timedelta(seconds=20), "requested_by": "api"}
    for status in (Status.RUNNING, Status.SHUTTING_DOWN, Status.STOPPED):
        target = activation.stopped(status=status, **held)
        with pytest.raises(StoppedByOperator) as refused:
            await activation.activator.activate(target)
        assert (refused.value.retry_after, activation.starts) == (20, 0)
    # It should be no invitation to retry where no request starts the instance.
    with pytest.raises(InstanceNotRunning) as refused_for_good:
        await activation.activator.activate(activation.stopped(on_demand_start=False, **held))
    assert refused_for_good.value.retry_after is None
    # As before, once the hold is over.
    target = activation.stopped(stop_hold_until=NOW, requested_by="api")
    task = asyncio.create_task(activation.activator.activate(target))
    await settle()
    assert activation.starts == 1
    task.cancel()
    await settle()


async def test_stop_by_an_operator_ends_a_wait_as_such(activation: Activation) -> None:
    task = asyncio.create_task(activation.activator.activate(activation.starting()))
    await settle()
    hold = {"stop_hold_until": NOW + timedelta(seconds=30), "requested_by": "admin:bob"}
    activation.stopped(status=Status.STARTING, **hold)
    with pytest.raises(StoppedByOperator):
        await task


async def test_failed_activation_is_repeated_after_its_hold_alone(activation: Activation) -> None:
    failed = {
        "status": Status.FAILED,
        "observed_generation": 1,
        "requested_by": ON_DEMAND,
        "failure": {"reason": "crashed", "details": "no", "exit_code": 1, "log_tail": []},
    }
    target = activation.lay(failure_hold_until=NOW + timedelta(seconds=5), **failed)
    for _ in range(30):
        with pytest.raises(BackendStartFailed):
            await activation.activator.activate(target)
    assert activation.starts == 0
    activation.lay(failure_hold_until=NOW, **failed)
    task = asyncio.create_task(activation.activator.activate(target))
    await settle()
    assert activation.starts == 1
    task.cancel()
    await settle()


async def test_request_that_missed_the_ready_instance_requests_another_start(
    activation: Activation,
) -> None:
    target = activation.starting()
    task = asyncio.create_task(activation.activator.activate(target))
    await settle()
    # It was ready and was preempted between two readings of the table.
    activation.stopped(status=Status.SHUTTING_DOWN, requested_by=EVICTED)
    await settle()
    assert activation.starts == 1
    assert not task.done()
    activation.lay(observed_generation=activation.generation)
    assert (await task).is_ready


async def test_timeout_says_the_place_in_the_queue(activation: Activation) -> None:
    activation.activator._timeout_seconds = 0.05
    queue = {"place": 2, "length": 3, "reason": "max_running_instances (1) is reached"}
    unseen = activation.lay(status=Status.STOPPED, generation=1, observed_generation=0, queue=queue)
    with pytest.raises(BackendStartTimeout) as error:
        await activation.activator.activate(unseen)
    assert "at place 2 of 3: max_running_instances (1) is reached" in error.value.details
    assert error.value.retry_after


async def test_waiters_of_other_instances_are_not_woken(activation: Activation) -> None:
    target = activation.starting()
    task = asyncio.create_task(activation.activator.activate(target))
    await settle()
    waiter = activation.activator.waiters._waiters["demo"][0]
    other = make_target("http://y", id=2, name="other")
    activation.live.replace(RoutingTable(targets={"demo": target, "other": other}))
    assert not waiter.changed.is_set()
    task.cancel()
    await settle()
