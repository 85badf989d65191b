"""Problems that make an open page untrue: what the banner on each page of the admin tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db.models import Exists, OuterRef, Q
from django.template.loader import render_to_string
from django.utils import timezone

from instances.models import Instance
from llamactl.admin.base import elapsed_time
from llamactl.config import current
from llamactl.core.change_feed import ChangeFeed
from nodes.models import Node


class Kind(StrEnum):
    DATABASE = "database"
    BROKER = "broker"
    WORKER = "worker"
    DRAINED = "drained"


_OF_NODES = (Kind.WORKER, Kind.DRAINED)


@dataclass(frozen=True)
class Problem:
    """One line of the banner."""

    kind: Kind
    since: datetime | None
    """``None`` for a worker that has never written a heartbeat."""
    node: str = ""


def read_node_problems() -> list[Problem]:
    """Return the silent and the drained nodes among those with instances, in one query."""
    now = timezone.now()
    has_instances = Exists(Instance.objects.filter(node=OuterRef("pk")))
    nodes = Node.objects.filter(Q(has_instances) | Q(name=current().local_node))
    problems = []
    for node in nodes.filter(kind=Node.Kind.WORKER):
        if not node.is_alive(now):
            problems.append(Problem(Kind.WORKER, node.heartbeat_at, node.name))
        if node.is_drained:
            problems.append(Problem(Kind.DRAINED, node.drained_at, node.name))
    return problems


def process_problems(feed: ChangeFeed) -> list[Problem]:
    """Return the problems that this process knows by itself."""
    lost = ((Kind.DATABASE, feed.database_lost_at), (Kind.BROKER, feed.broker_lost_at))
    return [Problem(kind, since) for kind, since in lost if since is not None]


def html_for(problems: Sequence[Problem], *, may_see_nodes: bool) -> str:
    """Return the banner's lines; its script reads from them which statuses are old."""
    return html_of(each for each in problems if may_see_nodes or each.kind not in _OF_NODES)


def html_of(problems: Iterable[Problem]) -> str:
    now = timezone.now()
    lines = [
        {
            "kind": each.kind.value,
            "node": each.node,
            "since": each.since,
            "elapsed": None if each.since is None else elapsed_time(each.since, now),
        }
        for each in problems
    ]
    return render_to_string("admin/problems.html", {"problems": lines}).strip()
