"""The routing table in memory, and its replacement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.table.table import RoutingTable


class LiveTable:
    """The current table, and notice of its replacement."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self._replaced: asyncio.Event | None = None
        self._listeners: list[Callable[[RoutingTable], None]] = []

    def listen(self, listener: Callable[[RoutingTable], None]) -> None:
        """Call ``listener`` with the previous table after each replacement."""
        self._listeners.append(listener)

    def replace(self, table: RoutingTable) -> None:
        before, self.table = self.table, table
        for listener in self._listeners:
            listener(before)
        if self._replaced is not None:
            self._replaced.set()
            self._replaced = None

    async def changed(self) -> None:
        """Return at the next replacement."""
        if self._replaced is None:
            self._replaced = asyncio.Event()
        await self._replaced.wait()
