"""List page of the instances: columns, queries, polled statuses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Greatest
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances.admin.actions import ControlsAdmin, control_buttons
from instances.admin.badge import status_badge, status_words
from instances.backends.registry import BACKENDS
from instances.models import Instance, StatusChange
from instances.scheduling.policy import limits_of
from keys.models import InferenceKey
from llamactl.admin.base import relative_time
from llamactl.config import current
from llamactl.core.sanitize import sanitize_text

POLLED_AT_ONCE = 500
"""Most rows of one poll for statuses; a page of the list has 50."""


class ChangeListAdmin(ControlsAdmin):
    """The list page of the instances' admin."""

    def get_search_fields(self, request: HttpRequest) -> Any:
        """Search the options only with the permission to change: a search finds masked text too."""
        fields = super().get_search_fields(request)
        may_change = self.has_change_permission(request)
        return [name for name in fields if may_change or not name.startswith("options__")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Instance]:
        return with_columns(super().get_queryset(request), timezone.now())

    @admin.display(description="status", ordering="status")
    def status_badge(self, instance: Instance) -> SafeString:
        return status_badge(instance)

    @admin.display(description="model", ordering="options__backend_type")
    def served_model(self, instance: Instance) -> SafeString:
        """Model, and below it the backend: side by side they would not fit a laptop's screen."""
        text = sanitize_text(instance.summary)
        return format_html(
            '<span class="served"><span class="model" title="{}">{}</span>'
            '<span class="backend">{}</span></span>',
            text,
            text or "none",
            BACKENDS[instance.options["backend_type"]].title,
        )

    @admin.display(description="keys", ordering="opened_by")
    def key_count(self, instance: Instance) -> str:
        return str(getattr(instance, "opened_by", ""))

    @admin.display(description="last change", ordering="changed_at")
    def last_change(self, instance: Instance) -> SafeString:
        return relative_time(getattr(instance, "changed_at", instance.updated_at), timezone.now())

    @admin.display(description="waits for capacity", empty_value="")
    def queue_place(self, instance: Instance) -> SafeString:
        reason = instance.queue["reason"] if instance.queue else ""
        return format_html(
            '<span title="{}">{}</span>', sanitize_text(str(reason)), instance.place_in_queue
        )

    @admin.display(description="")
    def controls(self, instance: Instance) -> str:
        # Submit buttons of the list's form: a POST with the form's CSRF token that keeps filters.
        return control_buttons(instance, in_row=True)

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = set()
        if not self.has_change_permission(request):
            hidden.add("controls")
        if not limits_of(current().instances).are_set:
            hidden.add("queue_place")  # an empty column, except for minutes after a boot
        return [name for name in super().get_list_display(request) if name not in hidden]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method == "POST" and "control" in request.POST:
            name, _, object_id = request.POST["control"].partition(":")
            self.control(request, name, object_id)
            return HttpResponseRedirect(request.get_full_path())
        return super().changelist_view(request, extra_context)

    def statuses_view(self, request: HttpRequest) -> HttpResponse:
        """Statuses of ``?ids=1,2`` by id, as ``status_words`` has them; polled by statuses.js."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        ids = [
            text
            for text in request.GET.get("ids", "").split(",")
            if text.isdecimal() and len(text) < 19
        ]
        rows = Instance.objects.filter(pk__in=ids[:POLLED_AT_ONCE]).defer("failure")
        now = timezone.now()
        return JsonResponse({str(row.pk): status_words(row, now) for row in rows})


def with_columns(instances: QuerySet[Instance], now: datetime) -> QuerySet[Instance]:
    """Annotate what the list's columns show from other tables: one query for all rows."""
    latest = StatusChange.objects.filter(instance=OuterRef("pk")).order_by("-at").values("at")
    unexpired = Q(expires_at=None) | Q(expires_at__gt=now)
    mode = InferenceKey.PermissionMode
    for_all = (
        InferenceKey.objects.filter(unexpired, permission_mode=mode.ALLOW_ALL)
        .order_by()
        .values("permission_mode")
        .annotate(total=Count("pk"))
        .values("total")
    )
    own = Q(keys__expires_at=None) | Q(keys__expires_at__gt=now)
    own &= Q(keys__permission_mode=mode.PER_INSTANCE)
    return instances.select_related("node").annotate(
        opened_by=Count("keys", filter=own) + Coalesce(Subquery(for_all), Value(0)),
        changed_at=Greatest("updated_at", Coalesce(Subquery(latest[:1]), "updated_at")),
    )
