"""Aliases of instances: further names by which requests find an instance.

A request has one model, so a name or an alias may belong to one instance alone. Names have a unique
index and aliases stand in the options, so the rule over both is checked here, under a lock.
"""

from __future__ import annotations

from collections.abc import Sequence

from instances.errors import AliasTaken, InstanceExists
from instances.models import Instance
from llamactl.core.events import announce
from llamactl.models import Topic


def claim_names(name: str, aliases: Sequence[str], *, is_new: bool) -> None:
    """Refuse names that another instance has; to be called in the transaction that saves them.

    The announcement of the change comes first: it locks the revision's row until the commit, so
    that two transactions never check each other's unsaved names.

    Raises AliasTaken, or InstanceExists for a new instance that is called as another one's alias.
    """
    announce(Topic.INSTANCES, name)
    if not aliases and not is_new:
        return
    others = Instance.objects.exclude(name=name)
    owners = {
        alias: owner
        for owner, taken in others.filter(options__has_key="aliases").values_list(
            "name", "options__aliases"
        )
        for alias in taken
    }
    if is_new and name in owners:
        raise InstanceExists(name, f"is an alias of the instance {owners[name]}")
    names = {name, *others.filter(name__in=aliases).values_list("name", flat=True)}
    for alias in aliases:
        if alias in names:
            raise AliasTaken(alias, "the name of an instance")
        if alias in owners:
            raise AliasTaken(alias, f"an alias of the instance {owners[alias]}")
