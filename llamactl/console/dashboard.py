"""The admin's index page: instances by status, latest status changes, nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from instances.admin.detail import HistoryLine, to_history_line
from instances.models import Instance, StatusChange
from instances.reported_status import with_reported_status
from instances.states import Status
from llamactl.admin.base import relative_time
from llamactl.config import current
from llamactl.core.sanitize import sanitize_text
from llamactl.masking import mask_url
from nodes.admin import alive_badge
from nodes.models import Node

CHANGES_SHOWN = 12


@dataclass(frozen=True)
class Tile:
    """A count of instances, with a link to the list of them."""

    status: str
    label: str
    count: int
    url: str


@dataclass(frozen=True)
class Link:
    label: str
    icon: str
    url: str


@dataclass(frozen=True)
class ChangeLine:
    """One line of the latest status changes."""

    name: str
    url: str
    when: SafeString
    change: HistoryLine


@dataclass(frozen=True)
class NodeLine:
    name: str
    url: str
    address: str
    badge: SafeString
    heartbeat: SafeString


@dataclass(frozen=True)
class Dashboard:
    """The index page's content for one user, by that user's permissions."""

    may_see_instances: bool
    total: int
    tiles: list[Tile]
    links: list[Link]
    changes: list[ChangeLine]
    nodes: list[NodeLine]


def add_dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the dashboard to the index page's context; unfold's DASHBOARD_CALLBACK."""
    context["title"] = "Overview"
    context["dashboard"] = dashboard(request)
    return context


def dashboard(request: HttpRequest) -> Dashboard:
    """Build the dashboard in four queries, for any number of instances and nodes."""
    user = request.user
    may_see_instances = user.has_perm("instances.view_instance")
    tiles = _tiles() if may_see_instances else []
    return Dashboard(
        may_see_instances=may_see_instances,
        total=tiles[0].count if tiles else 0,
        tiles=tiles,
        links=_links(request),
        changes=_changes() if may_see_instances else [],
        nodes=_nodes() if user.has_perm("nodes.view_node") else [],
    )


def _tiles() -> list[Tile]:
    counts = Instance.objects.aggregate(
        total=Count("pk"),
        **{status.value: Count("pk", filter=with_reported_status(status)) for status in Status},
    )
    url = reverse("admin:instances_instance_changelist")
    first = Tile("", "instances", counts["total"], url)
    return [first] + [
        Tile(status.value, str(status.label), counts[status.value], f"{url}?status={status.value}")
        for status in (Status.RUNNING, Status.STARTING, Status.FAILED, Status.STOPPED)
    ]


def _links(request: HttpRequest) -> list[Link]:
    user = request.user
    links = []
    if user.has_perm("instances.add_instance"):
        links.append(Link("New instance", "add", reverse("admin:instances_instance_add")))
    if user.has_perm("keys.add_inferencekey"):
        links.append(Link("New key", "key", reverse("admin:keys_inferencekey_add")))
    if current().server.enable_swagger:
        links.append(Link("API", "code", reverse("docs")))
    return links


def _changes() -> list[ChangeLine]:
    now = timezone.now()
    # Ordered by key, which has an index, and not by time: the page is refreshed often.
    rows = StatusChange.objects.select_related("instance").order_by("-pk")[:CHANGES_SHOWN]
    return [
        ChangeLine(
            name=row.instance.name,
            url=reverse("admin:instances_instance_change", args=[row.instance_id]),
            when=relative_time(row.at, now),
            change=to_history_line(row),
        )
        for row in rows
    ]


def _nodes() -> list[NodeLine]:
    now = timezone.now()
    return [
        NodeLine(
            name=node.name,
            url=reverse("admin:nodes_node_change", args=[node.pk]),
            address=sanitize_text(mask_url(node.address)),
            badge=alive_badge(node),
            heartbeat=relative_time(node.heartbeat_at, now),
        )
        for node in Node.objects.all()
    ]
