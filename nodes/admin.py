"""Admin pages of the nodes: list, drain, resume, delete.

Workers and the config create the rows, so no page adds or edits one.
"""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances import node_drain
from llamactl.admin.base import DomainAdmin, relative_time
from llamactl.masking import mask_url
from nodes.models import Node


@admin.register(Node)
class NodeAdmin(DomainAdmin[Node]):
    """Admin pages of ``Node``."""

    list_display = (
        "name",
        "alive",
        "work",
        "kind",
        "shown_address",
        "instance_counts",
        "heartbeat",
    )
    list_filter = ("kind",)
    # No search in addresses: it would find a password letter by letter.
    search_fields = ("name",)
    search_help_text = "Name"
    fields = ("name", "alive", "work", "kind", "shown_address", "heartbeat")
    readonly_fields = fields
    actions = ("drain_selected", "resume_selected")

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

    def has_maintain_permission(self, request: HttpRequest) -> bool:
        """Require the change permission for the actions, though no form changes a node."""
        return request.user.has_perm("nodes.change_node")

    @admin.action(description="Drain: stop all instances, start none", permissions=["maintain"])
    def drain_selected(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        for node in queryset:
            names = node_drain.drain(node.name, cause=f"drain:{request.user}"[:60])
            text = (
                f"{node.name} is draining; stop requested for: {', '.join(names) or 'no instance'}"
            )
            self.log_change(request, node, "Drained.")
            self.message_user(request, text, messages.SUCCESS)

    @admin.action(description="Resume: take starts again", permissions=["maintain"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        for node in queryset:
            names = node_drain.resume(node.name, cause=f"resume:{request.user}"[:60])
            text = f"{node.name} takes starts again; start requested for: {_listed(names)}"
            self.log_change(request, node, "Resumed.")
            self.message_user(request, text, messages.SUCCESS)

    def has_delete_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        """Refuse to delete a live node: its next heartbeat would create the row again."""
        if obj is not None and obj.is_alive(timezone.now()):
            return False
        return super().has_delete_permission(request, obj)

    @admin.display(description="worker", ordering="heartbeat_at")
    def alive(self, node: Node) -> SafeString:
        return alive_badge(node)

    @admin.display(description="starts", ordering="drained_at")
    def work(self, node: Node) -> SafeString:
        if node.drained_at is None:
            return format_html("{}", "accepted")
        return format_html(
            '<span class="badge" data-status="{}">{}</span> {}',
            "shutting_down",
            "drained",
            relative_time(node.drained_at, timezone.now()),
        )

    @admin.display(description="address", ordering="address")
    def shown_address(self, node: Node) -> str:
        return mask_url(node.address) or "this host"

    @admin.display(description="instances", ordering="instance_count")
    def instance_counts(self, node: Node) -> str:
        total, running = getattr(node, "instance_count", 0), getattr(node, "running_count", 0)
        return f"{total}, {running} running"

    @admin.display(description="last heartbeat", ordering="heartbeat_at")
    def heartbeat(self, node: Node) -> SafeString:
        return relative_time(node.heartbeat_at, timezone.now())


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "no instance"


def alive_badge(node: Node) -> SafeString:
    """Return the state of the node's worker as a coloured word."""
    if node.is_alive(timezone.now()):
        return format_html('<span class="badge" data-status="{}">{}</span>', "running", "alive")
    word = "no heartbeat" if node.heartbeat_at is None else "gone"
    return format_html('<span class="badge" data-status="{}">{}</span>', "failed", word)
