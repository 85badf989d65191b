"""The rule that a path which the backend does not have starts no instance.

A start may take minutes and stop another instance, only for a backend that answers 404. A running
instance gets every path: a newer backend may have more than llamactl knows.
"""

from __future__ import annotations

from instances import desired_state
from instances.errors import InstanceNotFound
from proxy.errors import PathNotServed
from proxy.table.table import RoutingTable, Target


def known_path(table: RoutingTable, target: Target, path: str) -> Target:
    """The target by this table. Raises PathNotServed where the path alone would start it."""
    now = table.targets.get(target.name)
    if now is None or now.id != target.id:
        raise InstanceNotFound(target.name)
    if not desired_state.should_run(now) and not now.has_path(path):
        raise PathNotServed(now.name, path)
    return now
