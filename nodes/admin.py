"""The admin's list of nodes, to be looked at: workers and the config make them."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llamactl.admin_pages import DomainAdmin, moment
from nodes.models import Node


@admin.register(Node)
class NodeAdmin(DomainAdmin[Node]):
    list_display = ("name", "alive", "kind", "shown_address", "instance_counts", "heartbeat")
    list_filter = ("kind",)
    search_fields = ("name", "address")
    search_help_text = "Name or address"
    fields = ("name", "alive", "kind", "shown_address", "heartbeat")
    readonly_fields = fields
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        return (
            super()
            .get_queryset(request)
            .annotate(
                instance_count=Count("instances"),
                running_count=Count("instances", filter=Q(instances__status="running")),
            )
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        """A node that is gone may be forgotten; one that is alive would come back at once."""
        if obj is not None and obj.is_alive(timezone.now()):
            return False
        return super().has_delete_permission(request, obj)

    @admin.display(description="alive", ordering="heartbeat_at")
    def alive(self, node: Node) -> SafeString:
        return alive_badge(node)

    @admin.display(description="address", ordering="address")
    def shown_address(self, node: Node) -> str:
        return node.address or "this host"

    @admin.display(description="instances", ordering="instance_count")
    def instance_counts(self, node: Node) -> str:
        total, running = getattr(node, "instance_count", 0), getattr(node, "running_count", 0)
        return f"{total}, {running} running"

    @admin.display(description="last heartbeat", ordering="heartbeat_at")
    def heartbeat(self, node: Node) -> SafeString:
        return moment(node.heartbeat_at, timezone.now())


def alive_badge(node: Node) -> SafeString:
    """Whether the node's worker is there, as a coloured word."""
    if node.is_alive(timezone.now()):
        return format_html('<span class="badge" data-status="{}">{}</span>', "running", "alive")
    word = "no heartbeat" if node.heartbeat_at is None else "gone"
    return format_html('<span class="badge" data-status="{}">{}</span>', "failed", word)
