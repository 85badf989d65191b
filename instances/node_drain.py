"""Drain a node for maintenance, and resume it.

A drained node starts no instance. The row of the node keeps the instances that were desired to run
at the time of the drain, and ``resume`` requests them again.
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
    """Request a stop of every instance of the node, and refuse every start until ``resume``.

    Returns the names of the instances that were running or starting. A second drain keeps the first
    drain's list of instances to resume. Raises NodeNotFound.
    """
    with transaction.atomic():
        node = _locked(name)
        # All rows, whatever their state a moment ago: a concurrent start holds the lock of its row,
        # and this query sees the start once it has committed.
        instances = list(Instance.objects.select_for_update().filter(node=node).order_by("pk"))
        running = [instance for instance in instances if instance.should_run]
        if not node.is_drained:
            node.drained_at = timezone.now()
            node.resumes = [instance.pk for instance in running]
            node.save(update_fields=["drained_at", "resumes"])
        for instance in instances:
            # A failed instance stays failed: a stop would forget the failure.
            if instance.should_run or instance.status in HAS_PROCESS:
                lifecycle.request_stop(instance.name, cause=cause, is_held=False)
    return [instance.name for instance in running]


def resume(name: str, *, cause: str = RESUME_CAUSE) -> list[str]:
    """Allow starts on the node again, and request those of the instances that ``drain`` stopped.

    Returns the names of these instances, without deleted ones. Raises NodeNotFound.
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
    """Return the names of the node's instances that may still have a process."""
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
