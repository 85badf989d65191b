"""Activation: a request that needs an instance starts it; requests share one start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from instances import desired_state
from instances.activation_hold import refuse_after_stop, refuse_while_held
from instances.errors import (
    BackendStartTimeout,
    InstanceNotFound,
    InstanceNotRunning,
    InstanceShuttingDown,
    StartNotPermitted,
)
from instances.states import Status
from proxy.activation.waiters import Waiter, Waiters
from proxy.table.live import LiveTable
from proxy.table.load_times import retry_after
from proxy.table.recheck import Recheck
from proxy.table.table import UNRESTRICTED, KeyRule, RoutingTable, Target


class RequestStart(Protocol):
    """Request of a start of an instance; returns the generation of the desired state."""

    def __call__(self, name: str, *, may_evict: bool) -> Awaitable[int]:
        """``may_evict``: whether another instance may be stopped for it."""


def _not_running(name: str) -> InstanceNotRunning:
    return InstanceNotRunning(f"instance {name} is not running; start it first")


class Activator:
    """Waits on the routing table; requests one start, however many requests wait for it."""

    def __init__(
        self,
        live: LiveTable,
        request_start: RequestStart,
        recheck: Recheck,
        *,
        timeout_seconds: float,
        on_change: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``on_change``: called at the first and after the last waiter of an instance."""
        self._live = live
        self._request_start = request_start
        self._recheck = recheck
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._starts: dict[tuple[str, bool], asyncio.Task[int]] = {}
        self.waiters = Waiters(on_change)
        live.listen(self._on_table_replaced)

    async def activate(self, target: Target, rule: KeyRule = UNRESTRICTED) -> Target:
        """The target once it is ready, after a start where one is needed.

        Returns in the same step of the event loop in which the table was read. ``rule`` is for
        fair turns, and the key's rights. Raises InstanceNotRunning (no on-demand start, or stopped
        meanwhile), StartNotPermitted, StoppedByOperator, InstanceShuttingDown,
        NoCapacityForActivation, BackendStartFailed (with the reason), BackendStartTimeout, or
        InstanceNotFound (deleted meanwhile).
        """
        if target.is_ready:
            return target
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with self.waiters.waiting(
                    target.name, rule.id, may_evict=rule.may_evict_for(target)
                ) as waiter:
                    # The instance may run since a moment ago. Or its last start may have failed or
                    # been stopped: this request is for the next start, not for that one.
                    table = await self._recheck.refreshed()
                    return await self._until_ready(_current(table, target), waiter, rule)
        except TimeoutError:
            raise self._timeout(target) from None

    async def require_running(
        self, target: Target, refusal: Callable[[str], Exception] = _not_running
    ) -> Target:
        """The running target, for a request that starts nothing and waits for nothing.

        Returns in the same step of the event loop in which the table was read. Raises
        ``refusal(name)``, by default InstanceNotRunning, or InstanceNotFound (deleted meanwhile).
        """
        return await self._recheck.before_refusal(lambda table: _running(table, target, refusal))

    async def recheck_running(self, target: Target) -> Target:
        """``require_running`` by a refreshed table, for a backend that just did not answer."""
        return _running(await self._recheck.refreshed(), target, _not_running)

    async def wait_for_change(self, target: Target, *, within_seconds: float) -> Target:
        """The target once the table differs from ``target``; the same target after the time limit.

        A backend that just died is still "running" in the table until its supervisor has noticed.
        """
        try:
            async with asyncio.timeout(within_seconds):
                while (now := _current(self._live.table, target)) == target:
                    await self._live.changed()
                return now
        except TimeoutError:
            return target

    async def _until_ready(self, target: Target, waiter: Waiter, rule: KeyRule) -> Target:
        generation = target.generation
        if not desired_state.should_run(target):
            generation = await self._start(target, rule)
        while True:
            # Cleared before the table is read, so that no later change is missed.
            waiter.changed.clear()
            now = _current(self._live.table, target)
            if desired_state.is_stopped_by_supervisor(now) and now.generation >= generation:
                # Ready for a moment and preempted, or taken for an instance without waiters.
                generation = await self._start(now, rule)
                continue
            if now.on_demand_start:
                # The stop ended this wait, and a retry must not undo the stop.
                refuse_after_stop(now, self._now())
            if desired_state.is_ready(now, generation):
                return now
            await waiter.changed.wait()

    async def _start(self, target: Target, rule: KeyRule) -> int:
        """Request the start, or join the request that is under way."""
        if target.on_demand_start:
            refuse_while_held(target, self._now())
        _check_startable(target)
        name, may_evict = target.name, rule.may_evict_for(target)
        start = name, may_evict
        task = self._starts.get(start)
        if task is None and not rule.may_start(target):
            task = self._starts.get((name, not may_evict))
            if task is None:
                raise StartNotPermitted(name)
        if task is None:
            task = asyncio.ensure_future(self._request_start(name, may_evict=may_evict))
            self._starts[start] = task
            task.add_done_callback(lambda _: self._starts.pop(start, None))
        # Shielded: the first client may disconnect while the others still wait.
        return await asyncio.shield(task)

    def _on_table_replaced(self, before: RoutingTable) -> None:
        for name in self.waiters.names():
            if self._live.table.targets.get(name) != before.targets.get(name):
                self.waiters.wake(name)

    def _timeout(self, target: Target) -> BackendStartTimeout:
        now = self._live.table.targets.get(target.name, target)
        retry_after_seconds = retry_after(now.load_seconds, waited=self._timeout_seconds)
        seconds = f"{self._timeout_seconds:g} s"
        if now.queue is not None and desired_state.should_run(now):
            details = (
                f"instance {now.name} is still queued after {seconds}, at place"
                f" {now.queue['place']} of {now.queue['length']}: {now.queue['reason']}; try again"
                " later"
            )
        else:
            details = (
                f"instance {now.name} is still loading after {seconds}; try again later, or raise"
                " instances.on_demand_start_timeout"
            )
        return BackendStartTimeout(
            details, reason="timeout", exit_code=None, log_tail=[], retry_after=retry_after_seconds
        )


def _current(table: RoutingTable, target: Target) -> Target:
    now = table.targets.get(target.name)
    if now is None or now.id != target.id:
        # An instance with another id is a new instance: the key was not checked for it.
        raise InstanceNotFound(target.name)
    return now


def _running(table: RoutingTable, target: Target, refusal: Callable[[str], Exception]) -> Target:
    now = _current(table, target)
    if not now.is_ready:
        raise refusal(now.name)
    return now


def _check_startable(target: Target) -> None:
    is_ending = target.status in (Status.SHUTTING_DOWN, Status.RUNNING)
    if is_ending and not (
        desired_state.is_stopped_by_supervisor(target) and target.on_demand_start
    ):
        is_operators = desired_state.is_by_operator(target.requested_by)
        stopped = "was stopped by an operator, and " if is_operators else ""
        raise InstanceShuttingDown(
            f"instance {target.name} {stopped}is shutting down; try again in a few seconds",
            retry_after=5,
        )
    if not target.on_demand_start:
        raise InstanceNotRunning(
            f"instance {target.name} is not running and on-demand start is not enabled;"
            " start it first"
        )
