"""The one rule for refusals by the routing table: refresh the table first, then decide again.

The table is a copy of the database. A key, a permission or an instance may have changed a moment
ago, and the event that tells of the change may still be under way or lost. A client that just made
the change must not be refused for a copy that is older than the change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from instances.errors import InstanceNotFound, InstanceNotRunning
from llamactl.core.errors import InvalidKey
from proxy.errors import InstanceNotPermitted, ModelNotFound, NotLlamaCpp, PathNotServed
from proxy.table.live import LiveTable
from proxy.table.table import RoutingTable

T = TypeVar("T")
P = ParamSpec("P")

_BY_THE_TABLE = (
    InvalidKey,
    InstanceNotPermitted,
    InstanceNotFound,
    ModelNotFound,
    NotLlamaCpp,
    PathNotServed,
    InstanceNotRunning,
)
"""The refusals that a newer table may turn into permission."""


class Recheck:
    """Decisions by the table in memory, made again by a refreshed table before they refuse."""

    def __init__(self, live: LiveTable, request_refresh: Callable[[], Awaitable[None]]) -> None:
        """``request_refresh``: see ``Refresher.request_refresh``."""
        self._live = live
        self._request_refresh = request_refresh

    async def before_refusal(
        self,
        decide: Callable[Concatenate[RoutingTable, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The result of ``decide(table, …)``, which raises to refuse.

        Returns in the same step of the event loop in which the deciding table was read.
        """
        try:
            return decide(self._live.table, *args, **kwargs)
        except _BY_THE_TABLE:
            table = await self.refreshed()
        return decide(table, *args, **kwargs)

    async def refreshed(self) -> RoutingTable:
        """A table no older than this call, or the table in memory if the database is away."""
        await self._request_refresh()
        return self._live.table
