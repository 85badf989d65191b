"""Making sure that a target runs: one start, many waiters, one deadline each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from instances import desired_state
from instances.errors import (
    BackendStartTimeout,
    InstanceNotFound,
    InstanceNotRunning,
    InstanceShuttingDown,
)
from instances.states import Status
from proxy.table.load_times import retry_after
from proxy.table.refresh import LiveTable
from proxy.table.table import RoutingTable, Target

logger = logging.getLogger(__name__)

RequestStart = Callable[[str], Awaitable[int]]
"""Asks for the instance to run; returns the generation that was asked for."""
LookAgain = Callable[[], Awaitable[None]]
"""Returns once the table is no older than the call, if it can be; see ``Refresher.look``."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """One request that waits; ``news`` is set when something has changed for it."""

    key: str
    since: float
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Waiting:
    """Waits on the routing table; asks for a start at most once however many requests wait."""

    def __init__(
        self,
        live: LiveTable,
        request_start: RequestStart,
        look_again: LookAgain,
        *,
        timeout_seconds: float,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_change``: a first request waits for some instance, or the last no longer does."""
        self._live = live
        self._request_start = request_start
        self._look_again = look_again
        self._timeout_seconds = timeout_seconds
        self._on_change = on_change
        self._starts: dict[str, asyncio.Task[int]] = {}
        self._waiters: dict[str, list[_Waiter]] = {}
        live.listen(self._tell)

    async def ready(self, target: Target, key_id: int | None = None) -> Target:
        """The target as the table has it once it is ready to answer.

        Returns in the very step in which the table was read. ``key_id``: whose turn it is, where
        many wait. Raises InstanceNotRunning (it may not be started, or was stopped meanwhile),
        InstanceShuttingDown, NoCapacityForActivation, BackendStartFailed (with the reason),
        BackendStartTimeout, or InstanceNotFound (deleted meanwhile).
        """
        if target.is_ready:
            return target
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with self._enlisted(target.name, key_id) as waiter:
                    return await self._wait(await self._as_it_is_now(target), waiter)
        except TimeoutError:
            raise self._timeout(target) from None

    async def running(self, target: Target) -> Target:
        """The target for a request that starts nothing and waits for nothing.

        Returns in the very step in which the table was read. Raises InstanceNotRunning, or
        InstanceNotFound (deleted meanwhile).
        """
        return target if target.is_ready else await self.still_running(target)

    async def still_running(self, target: Target) -> Target:
        """The same, by what the database says now: it may have been stopped a moment ago."""
        now = await self._as_it_is_now(target)
        if not now.is_ready:
            raise InstanceNotRunning(f"instance {now.name} is not running; start it first")
        return now

    async def replaced(self, target: Target, *, within_seconds: float) -> Target:
        """The target once the table says something else of it than it did when it was away.

        A backend that just died is still "running" in the table until its supervisor has said
        otherwise. Returns the unchanged target if nobody says so in time.
        """
        try:
            async with asyncio.timeout(within_seconds):
                while (now := self._current(target)) == target:
                    await self._live.changed()
                return now
        except TimeoutError:
            return target

    def report(self) -> dict[str, dict[str, tuple[int, float]]]:
        """Instance → id of a key → how many wait, and since when (unix time) the oldest."""
        return {
            name: {
                key: (len(waiters), waiters[0].since) for key, waiters in _by_key(waiters).items()
            }
            for name, waiters in self._waiters.items()
        }

    async def _wait(self, target: Target, waiter: _Waiter) -> Target:
        generation = target.generation
        if not desired_state.should_run(target):
            generation = await self._start(target)
        while True:
            # Before the look, so that no change after it is missed.
            waiter.news.clear()
            now = self._current(target)
            if desired_state.is_stopped_by_supervisor(now) and now.generation >= generation:
                # It was ready for a moment, or nobody seemed to wait for it any more.
                generation = await self._start(now)
            elif desired_state.is_ready(now, generation):
                return now
            else:
                await waiter.news.wait()

    async def _as_it_is_now(self, target: Target) -> Target:
        """What the database says: the API may have told the client a moment ago that it runs.

        Or that the last start has failed or was taken back: then this request is for another one,
        and must not be answered with what became of that.
        """
        await self._look_again()
        return self._current(target)

    async def _start(self, target: Target) -> int:
        """Ask for the start, if a request may, or join the asking that is under way."""
        _check_startable(target)
        name = target.name
        task = self._starts.get(name)
        if task is None:
            task = asyncio.ensure_future(self._request_start(name))
            self._starts[name] = task
            task.add_done_callback(lambda _: self._starts.pop(name, None))
        # Shielded: the client that asked first may leave, the others still wait.
        return await asyncio.shield(task)

    def _current(self, target: Target) -> Target:
        now = self._live.table.targets.get(target.name)
        if now is None or now.id != target.id:
            # Another one of that name is another instance: the key was not checked for it.
            raise InstanceNotFound(target.name)
        return now

    @contextmanager
    def _enlisted(self, name: str, key_id: int | None) -> Iterator[_Waiter]:
        """Among those that wait for the instance, for as long as the block lasts."""
        waiter = _Waiter(key="" if key_id is None else str(key_id), since=time.time())
        waiters = self._waiters.setdefault(name, [])
        waiters.append(waiter)
        if len(waiters) == 1:
            self._on_change()
        try:
            yield waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[name]
                self._on_change()

    def _tell(self, before: RoutingTable) -> None:
        """The table was replaced: wake those for whom something has changed, in fair turns.

        They go on in this order, so a key with many requests does not put them all in front of
        another's few in the queue of the backend.
        """
        for name, waiters in self._waiters.items():
            if self._live.table.targets.get(name) != before.targets.get(name):
                for waiter in in_turns(waiters):
                    waiter.news.set()

    def _timeout(self, target: Target) -> BackendStartTimeout:
        now = self._live.table.targets.get(target.name, target)
        again_seconds = retry_after(now.load_seconds, waited=self._timeout_seconds)
        seconds = f"{self._timeout_seconds:g} s"
        if now.queue is not None and desired_state.should_run(now):
            details = (
                f"instance {now.name} still waits for room after {seconds}, at place"
                f" {now.queue['place']} of {now.queue['length']}: {now.queue['reason']}; try again"
                " later"
            )
        else:
            details = (
                f"instance {now.name} is still loading after {seconds}; try again later, or raise"
                " instances.on_demand_start_timeout"
            )
        return BackendStartTimeout(
            details, reason="timeout", exit_code=None, log_tail=[], retry_after=again_seconds
        )


def _check_startable(target: Target) -> None:
    is_ending = target.status in (Status.SHUTTING_DOWN, Status.RUNNING)
    if is_ending and not (
        desired_state.is_stopped_by_supervisor(target) and target.on_demand_start
    ):
        raise InstanceShuttingDown(
            f"instance {target.name} is shutting down; try again in a few seconds", retry_after=5
        )
    if not target.on_demand_start:
        raise InstanceNotRunning(
            f"instance {target.name} is not running and on-demand start is not enabled;"
            " start it first"
        )


def in_turns(waiters: list[_Waiter]) -> list[_Waiter]:
    """The first of each key, then the second of each, and so on; keys by their oldest."""
    rounds = zip_longest(*_by_key(waiters).values())
    return [waiter for waiter in chain.from_iterable(rounds) if waiter is not None]


def _by_key(waiters: list[_Waiter]) -> dict[str, list[_Waiter]]:
    found: dict[str, list[_Waiter]] = {}
    for waiter in waiters:
        found.setdefault(waiter.key, []).append(waiter)
    return found
