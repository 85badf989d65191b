"""The admin's list of nodes: workers and the config make them, people drain and resume them."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances import node_drain
from llamactl.admin.base import DomainAdmin, moment
from nodes.models import Node


@admin.register(Node)
class NodeAdmin(DomainAdmin[Node]):
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
    search_fields = ("name", "address")
    search_help_text = "Name or address"
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
        """Draining changes no column by hand, which nobody may, but what the node does."""
        return request.user.has_perm("nodes.change_node")

    @admin.action(description="Drain: stop everything, start nothing", permissions=["maintain"])
    def drain_selected(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        for node in queryset:
            names = node_drain.drain(node.name, cause=f"drain:{request.user}"[:60])
            text = f"{node.name} is being drained; asked to stop: {', '.join(names) or 'nothing'}"
            self.log_change(request, node, "Drained.")
            self.message_user(request, text, messages.SUCCESS)

    @admin.action(description="Resume: back to work", permissions=["maintain"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        for node in queryset:
            names = node_drain.resume(node.name, cause=f"resume:{request.user}"[:60])
            text = f"{node.name} is back; asked to start: {', '.join(names) or 'nothing'}"
            self.log_change(request, node, "Resumed.")
            self.message_user(request, text, messages.SUCCESS)

    def has_delete_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        """A node that is gone may be forgotten; one that is alive would come back at once."""
        if obj is not None and obj.is_alive(timezone.now()):
            return False
        return super().has_delete_permission(request, obj)

    @admin.display(description="alive", ordering="heartbeat_at")
    def alive(self, node: Node) -> SafeString:
        return alive_badge(node)

    @admin.display(description="work", ordering="drained_at")
    def work(self, node: Node) -> SafeString:
        if node.drained_at is None:
            return format_html("{}", "takes starts")
        return format_html(
            '<span class="badge" data-status="{}">{}</span> {}',
            "shutting_down",
            "drained",
            moment(node.drained_at, timezone.now()),
        )

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
