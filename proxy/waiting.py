"""Making sure that a target runs: one start, many waiters, one deadline each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from instances import wishes
from instances.errors import (
    BackendStartTimeout,
    InstanceNotFound,
    InstanceNotRunning,
    InstanceShuttingDown,
)
from instances.states import Status
from proxy.refresh import LiveTable
from proxy.table import Target

logger = logging.getLogger(__name__)

RequestStart = Callable[[str], Awaitable[int]]
"""Asks for the instance to run; returns the generation that was asked for."""


class Waiting:
    """Waits on the routing table; asks for a start at most once however many requests wait."""

    def __init__(
        self, live: LiveTable, request_start: RequestStart, *, timeout_seconds: float
    ) -> None:
        self._live = live
        self._request_start = request_start
        self._timeout_seconds = timeout_seconds
        self._starts: dict[str, asyncio.Task[int]] = {}

    async def ready(self, target: Target) -> Target:
        """The target as the table has it once it is ready to answer.

        Returns in the very step in which the table was read. Raises InstanceNotRunning (it may
        not be started, or was stopped meanwhile), InstanceShuttingDown, BackendStartFailed (with
        the reason), BackendStartTimeout, or InstanceNotFound (deleted meanwhile).
        """
        if target.is_ready:
            return target
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._wait(target)
        except TimeoutError:
            raise BackendStartTimeout(
                f"instance {target.name} is still loading after {self._timeout_seconds:g} s; try"
                " again later, or raise instances.on_demand_start_timeout",
                reason="timeout",
                exit_code=None,
                log_tail=[],
                retry_after=min(self._timeout_seconds, 30),
            ) from None

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

    async def _wait(self, target: Target) -> Target:
        generation = target.generation
        if not wishes.is_wanted(target):
            self._check_startable(target)
            generation = await self._start(target.name)
        while True:
            now = self._current(target)
            if wishes.is_ready(now, generation):
                return now
            await self._live.changed()

    def _check_startable(self, target: Target) -> None:
        if target.status in (Status.SHUTTING_DOWN, Status.RUNNING):
            raise InstanceShuttingDown(
                f"instance {target.name} is shutting down; try again in a few seconds",
                retry_after=5,
            )
        if not target.on_demand_start:
            raise InstanceNotRunning(
                f"instance {target.name} is not running and on-demand start is not enabled;"
                " start it first"
            )

    async def _start(self, name: str) -> int:
        """Ask for the start, or join the asking that is under way."""
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
