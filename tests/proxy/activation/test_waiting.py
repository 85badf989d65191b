"""Requests that wait: whose turn it is, what is told of them, and whose stop they wait through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from instances.errors import BackendStartTimeout, InstanceNotRunning, InstanceShuttingDown
from instances.states import EVICTED, IDLE, DesiredState, Status
from proxy.activation.waiting import Waiting
from proxy.asgi import ProxyApplication
from proxy.inflight import InFlight
from proxy.table.refresh import LiveTable
from proxy.table.table import RoutingTable, Target
from tests.proxy.conftest import ALICE, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest


class Waits:
    """A waiting room whose table is laid by the test."""

    def __init__(self) -> None:
        self.live = LiveTable()
        self.changes = 0
        self.starts = 0
        self.generation = 1
        self.waiting = Waiting(
            self.live,
            self._start,
            self._look_again,
            timeout_seconds=5,
            on_change=self._count_change,
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

    async def _start(self, name: str) -> int:
        self.starts += 1
        self.generation += 1
        self.starting()
        return self.generation

    async def _look_again(self) -> None:
        """The table is as true as it gets."""

    def _count_change(self) -> None:
        self.changes += 1


@pytest.fixture
def waits() -> Iterator[Waits]:
    waits = Waits()
    yield waits
    assert waits.waiting.report() == {}


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_waiters_are_released_in_fair_turns_between_keys(waits: Waits) -> None:
    target = waits.starting()
    released: list[int] = []

    async def one(key_id: int) -> None:
        await waits.waiting.ready(target, key_id)
        released.append(key_id)

    tasks = [asyncio.create_task(one(1)) for _ in range(50)]
    await settle()
    tasks += [asyncio.create_task(one(2)) for _ in range(5)]
    await settle()
    waits.lay(observed_generation=1)
    await asyncio.gather(*tasks)
    assert released[:11] == [1, 2] * 5 + [1]
    assert released.count(1) == 50


async def test_report_counts_by_key_from_the_first_to_the_last_that_waits(waits: Waits) -> None:
    target = waits.starting()
    tasks = [asyncio.create_task(waits.waiting.ready(target, key)) for key in (7, 7, None)]
    await settle()
    report = waits.waiting.report()
    assert {key: count for key, (count, _) in report["demo"].items()} == {"7": 2, "": 1}
    assert waits.changes == 1
    oldest = report["demo"]["7"][1]
    tasks[0].cancel()
    await settle()
    assert waits.waiting.report()["demo"]["7"][0] == 1
    assert waits.waiting.report()["demo"]["7"][1] >= oldest
    for task in tasks[1:]:
        task.cancel()
    await settle()
    assert waits.waiting.report() == {}
    assert waits.changes == 2


async def test_what_is_ready_is_not_waited_for(waits: Waits) -> None:
    target = waits.lay()
    assert await waits.waiting.ready(target) is target
    assert waits.changes == 0


async def test_request_counts_as_waiting_before_it_asks_for_the_start(waits: Waits) -> None:
    # The supervisor takes a wish back if nobody is reported to wait for it.
    seen = []

    async def start(name: str) -> int:
        seen.append(dict(waits.waiting.report()))
        waits.starting()
        return waits.generation

    waits.waiting._request_start = start
    task = asyncio.create_task(waits.waiting.ready(waits.stopped()))
    await settle()
    assert [list(each) for each in seen] == [["demo"]]
    waits.lay()
    await task


@pytest.mark.parametrize("cause", [EVICTED, IDLE])
@pytest.mark.parametrize("status", [Status.SHUTTING_DOWN, Status.RUNNING, Status.STOPPED])
async def test_an_instance_that_made_room_is_asked_back_and_waited_for(
    waits: Waits, status: Status, cause: str
) -> None:
    target = waits.stopped(status=status, requested_by=cause)
    task = asyncio.create_task(waits.waiting.ready(target))
    await settle()
    assert waits.starts == 1
    waits.lay(observed_generation=waits.generation)
    assert (await task).is_ready


@pytest.mark.parametrize("cause", ["api", "admin:bob", ""])
@pytest.mark.parametrize("status", [Status.SHUTTING_DOWN, Status.RUNNING])
async def test_an_instance_that_an_operator_stops_is_not_waited_for(
    waits: Waits, status: Status, cause: str
) -> None:
    target = waits.stopped(status=status, requested_by=cause)
    with pytest.raises(InstanceShuttingDown):
        await waits.waiting.ready(target)
    assert waits.starts == 0


async def test_one_that_is_not_started_on_demand_is_not_asked_back(waits: Waits) -> None:
    gone = {"requested_by": EVICTED, "on_demand_start": False}
    with pytest.raises(InstanceShuttingDown):
        await waits.waiting.ready(waits.stopped(status=Status.SHUTTING_DOWN, **gone))
    with pytest.raises(InstanceNotRunning):
        await waits.waiting.ready(waits.stopped(**gone))


async def test_request_that_missed_its_moment_asks_again(waits: Waits) -> None:
    target = waits.starting()
    task = asyncio.create_task(waits.waiting.ready(target))
    await settle()
    # It was ready and made room again between two looks at the table.
    waits.stopped(status=Status.SHUTTING_DOWN, requested_by=EVICTED)
    await settle()
    assert waits.starts == 1
    assert not task.done()
    waits.lay(observed_generation=waits.generation)
    assert (await task).is_ready


async def test_timeout_says_the_place_in_the_queue(waits: Waits) -> None:
    waits.waiting._timeout_seconds = 0.05
    queue = {"place": 2, "length": 3, "reason": "max_running_instances (1) is reached"}
    unseen = waits.lay(status=Status.STOPPED, generation=1, observed_generation=0, queue=queue)
    with pytest.raises(BackendStartTimeout) as error:
        await waits.waiting.ready(unseen)
    assert "at place 2 of 3: max_running_instances (1) is reached" in error.value.details
    assert error.value.retry_after


async def test_waiters_of_other_instances_are_not_woken(waits: Waits) -> None:
    target = waits.starting()
    task = asyncio.create_task(waits.waiting.ready(target))
    await settle()
    waiter = waits.waiting._waiters["demo"][0]
    other = make_target("http://y", id=2, name="other")
    waits.live.replace(RoutingTable(targets={"demo": target, "other": other}))
    assert not waiter.news.is_set()
    task.cancel()
    await settle()


async def test_client_that_leaves_while_waiting_is_no_demand_any_more(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.STARTING))
    exchange = AsgiRequest(app, "/v1/chat/completions", key=ALICE, json={"model": "demo"}).start()
    while not gateway.waiting.report():
        await asyncio.sleep(0.01)
    assert list(gateway.waiting.report()["demo"]) == ["1"]
    exchange.disconnect()
    await exchange.finish()
    assert gateway.waiting.report() == {}


class Content:
    total_bytes = 0


def test_use_ends_with_the_last_byte_and_looking_is_none() -> None:
    in_flight = InFlight()
    with in_flight.carrying("used") as carried, in_flight.carrying("seen", is_use=False):
        report = in_flight.report(1)
        assert report.in_flight == {"used": 1, "seen": 1}
        assert report.looking == {"seen": 1}
        assert report.last_used == {}
        carried.content = Content()
        carried.content.total_bytes = 5
        moved = in_flight.report(1).last_used["used"]
        # No byte since: so the time stays.
        assert in_flight.report(1).last_used["used"] == moved
    after = in_flight.report(1)
    assert after.in_flight == {}
    assert list(after.last_used) == ["used"]
    assert after.last_used["used"] >= moved
