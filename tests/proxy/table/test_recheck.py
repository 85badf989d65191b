from __future__ import annotations

from collections.abc import Callable

import pytest

from instances.errors import InstanceNotFound, InstanceNotRunning
from llamactl.core.errors import InvalidKey, InvalidRequest, LlamactlError, MissingKey
from proxy.errors import InstanceNotPermitted, ModelNotFound, NotLlamaCpp
from proxy.table.live import LiveTable
from proxy.table.recheck import Recheck
from proxy.table.table import RoutingTable

NEWER = RoutingTable(revision=7)


class Database:
    """Brings the newer table at the next refresh."""

    def __init__(self) -> None:
        self.live = LiveTable()
        self.refreshes = 0
        self.recheck = Recheck(self.live, self._refresh)

    async def _refresh(self) -> None:
        self.refreshes += 1
        self.live.replace(NEWER)


def refusing(
    error: LlamactlError, *, also_when_newer: bool = False
) -> Callable[[RoutingTable], int]:
    def decide(table: RoutingTable) -> int:
        if table is not NEWER or also_when_newer:
            raise error
        return table.revision

    return decide


async def test_permission_asks_no_database() -> None:
    database = Database()
    assert await database.recheck.before_refusal(lambda table: table.revision) == -1
    assert database.refreshes == 0


@pytest.mark.parametrize(
    "error",
    [
        InvalidKey(),
        InstanceNotPermitted(),
        InstanceNotFound("a"),
        ModelNotFound("a"),
        NotLlamaCpp("a"),
        InstanceNotRunning("a"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_refusal_by_the_table_is_decided_again_by_a_newer_table(
    error: LlamactlError,
) -> None:
    database = Database()
    assert await database.recheck.before_refusal(refusing(error)) == 7
    with pytest.raises(type(error)):
        await database.recheck.before_refusal(refusing(error, also_when_newer=True))
    assert database.refreshes == 2


@pytest.mark.parametrize("error", [MissingKey(), InvalidRequest("no JSON")])
async def test_refusal_that_no_table_can_change_is_final(error: LlamactlError) -> None:
    database = Database()
    with pytest.raises(type(error)):
        await database.recheck.before_refusal(refusing(error))
    assert database.refreshes == 0
