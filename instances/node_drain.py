"""How is a node emptied for maintenance, and put back to work?

A drained node starts nothing, whoever asks. What was wanted of its instances when it was drained is
kept with the node, so that ``resume`` can ask for it again.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from instances import lifecycle
from instances.models import Instance
from instances.states import HAS_PROCESS, Status
from nodes.errors import NodeNotFound
from nodes.models import Node

CAUSE = "drain"
RESUME_CAUSE = "resume"


def drain(name: str, *, cause: str = CAUSE) -> list[str]:
    """Ask for everything on the node to stop, and let nothing start; returns what had to stop.

    A node that is drained already keeps what it is to resume. Raises NodeNotFound.
    """
    with transaction.atomic():
        node = _locked(name)
        # Every one of them, whatever it was a moment ago: a start that is just being asked for has
        # the lock of its row, and is seen here once it is through.
        instances = list(Instance.objects.select_for_update().filter(node=node).order_by("pk"))
        wanted = [instance for instance in instances if instance.should_run]
        if not node.is_drained:
            node.drained_at = timezone.now()
            node.resumes = [instance.pk for instance in wanted]
            node.save(update_fields=["drained_at", "resumes"])
        for instance in instances:
            lifecycle.request_stop(instance.name, cause=cause)
    return [instance.name for instance in wanted]


def resume(name: str, *, cause: str = RESUME_CAUSE) -> list[str]:
    """Let the node start instances again, beginning with those that ``drain`` stopped.

    Returns their names; one that was deleted meanwhile is left out. Raises NodeNotFound.
    """
    with transaction.atomic():
        node = _locked(name)
        ids, node.resumes, node.drained_at = node.resumes, [], None
        node.save(update_fields=["drained_at", "resumes"])
        stopped = Instance.objects.filter(node=node, pk__in=ids).values_list("name", flat=True)
        names = list(stopped)
        for each in names:
            lifecycle.request_start(each, cause=cause)
    return names


def unfinished(name: str) -> list[str]:
    """The instances of the node that may still have a process, by name."""
    rows = Instance.objects.filter(node__name=name)
    busy = rows.filter(status__in=[*HAS_PROCESS, Status.RESTARTING])
    return sorted({*_names(busy), *_names(rows.filter(pid__isnull=False))})


def _names(rows: Iterable[Instance]) -> list[str]:
    return [instance.name for instance in rows]


def _locked(name: str) -> Node:
    try:
        return Node.objects.select_for_update().get(name=name)
    except Node.DoesNotExist:
        raise NodeNotFound(name) from None
