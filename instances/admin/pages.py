"""The admin's pages of the instances: list, form and detail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as confirm_deletion
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Greatest
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances import lifecycle
from instances.admin.actions import ControlsAdmin, cause_of, control_buttons, counted
from instances.admin.detail import curl_line, overview
from instances.admin.filters import BackendFilter, StatusFilter
from instances.admin.form import SHORT_ROWS, STARTING_ROWS, InstanceForm, process_rows
from instances.admin.form_values import suggested_name, to_fields, to_lines
from instances.admin.preflight import PreflightAdmin, check_document
from instances.backends import BACKENDS, backend_for
from instances.dry_run import command_line_of
from instances.models import Instance, StatusChange
from instances.scheduling.policy import limits_of
from instances.states import Status
from keys.models import InferenceKey
from llamactl.admin.base import relative_time
from llamactl.config import current
from llamactl.core.error_format import seed_document
from llamactl.core.errors import LlamactlError
from llamactl.core.sanitize import sanitize_json, sanitize_text
from llamactl.masking import mask_document

POLLED_AT_ONCE = 500
"""Rows that one poll for badges may ask about; a page of the list has 50."""


@admin.register(Instance)
class InstanceAdmin(ControlsAdmin, PreflightAdmin):
    form = InstanceForm
    list_display = (
        "name",
        "status_badge",
        "served_model",
        "port",
        "node",
        "key_count",
        "last_change",
        "queue_place",
        "controls",
    )
    list_filter = (StatusFilter, BackendFilter, "node")
    list_per_page = 50
    search_fields = (
        "name",
        "options__backend_options__model__icontains",
        "options__backend_options__hf_repo__icontains",
        "options__group__icontains",
    )
    search_help_text = "Name, model or group"
    actions = ("start_selected", "stop_selected", "restart_selected", "delete_selected")
    readonly_fields = ("options_text",)

    class Media:
        css: ClassVar = {"all": ["css/instances.css"]}
        js: ClassVar = [
            forms.Script("js/statuses.js", type="module"),
            forms.Script("js/fragment.js", type="module"),
            forms.Script("js/instance_form.js", type="module"),
            forms.Script("js/copy.js", type="module"),
        ]

    # -- the list ---------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Instance]:
        now = timezone.now()
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
        return (
            super()
            .get_queryset(request)
            .select_related("node")
            .annotate(
                opened_by=Count("keys", filter=own) + Coalesce(Subquery(for_all), Value(0)),
                changed_at=Greatest("updated_at", Coalesce(Subquery(latest[:1]), "updated_at")),
            )
        )

    @admin.display(description="status", ordering="status")
    def status_badge(self, instance: Instance) -> SafeString:
        return status_badge(instance)

    @admin.display(description="model", ordering="options__backend_type")
    def served_model(self, instance: Instance) -> SafeString:
        """The model, and under it the backend: side by side they would not fit a laptop."""
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

    @admin.display(description="waits for room", empty_value="")
    def queue_place(self, instance: Instance) -> SafeString:
        reason = instance.queue["reason"] if instance.queue else ""
        return format_html(
            '<span title="{}">{}</span>', sanitize_text(str(reason)), instance.place_in_queue
        )

    @admin.display(description="")
    def controls(self, instance: Instance) -> str:
        # Submit buttons of the list's own form: a POST with its CSRF token, filters kept.
        return control_buttons(instance, in_row=True)

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = set()
        if not self.has_change_permission(request):
            hidden.add("controls")
        if not limits_of(current().instances).are_set:
            hidden.add("queue_place")  # a column of blanks, but for the minutes after a boot
        return [name for name in super().get_list_display(request) if name not in hidden]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method == "POST" and "control" in request.POST:
            name, _, object_id = request.POST["control"].partition(":")
            self.control(request, name, object_id)
            return HttpResponseRedirect(request.get_full_path())
        return super().changelist_view(request, extra_context)

    # -- the form ---------------------------------------------------------------------------------

    def get_form(
        self,
        request: HttpRequest,
        obj: Instance | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        # All fields are the form's own; the model's columns are lifecycle's to write.
        return super().get_form(request, obj, change=change, **{**kwargs, "fields": ()})

    def get_fieldsets(self, request: HttpRequest, obj: Instance | None = None) -> Any:
        if obj is not None and not self.has_change_permission(request, obj):
            return [(None, {"fields": ["options_text"]})]
        first: list[str | tuple[str, ...]] = ["backend_type", *SHORT_ROWS, "further_options"]
        if obj is None:
            config = current()
            elsewhere = set(config.nodes) - {config.local_node}
            first = ["name", "start_now", *(["node"] if elsewhere else []), *first]
        collapsed = {"classes": ["collapse"]}
        return [
            *self.extra_fieldsets(request),
            ("What to serve", {"fields": first}),
            (
                "Starting and stopping",
                {
                    "fields": STARTING_ROWS,
                },
            ),
            (
                "Process",
                {
                    **collapsed,
                    "fields": process_rows(self.form.options_model)
                    + (() if obj is None else ("seen",)),
                },
            ),
        ]

    @admin.display(description="options")
    def options_text(self, instance: Instance) -> SafeString:
        """For those who may only look: the document, its secrets left out."""
        return format_html(
            '<pre class="log">{}</pre>', sanitize_json(mask_document(instance.options))
        )

    def save_model(self, request: HttpRequest, obj: Instance, form: Any, change: bool) -> None:
        if not change:
            saved = lifecycle.create(
                form.cleaned_data["name"], form.to_document(), cause=cause_of(request)
            )
            obj.pk, obj.name = saved.pk, saved.name
            if form.cleaned_data["start_now"]:
                lifecycle.request_start(saved.name, cause=cause_of(request))
        elif form.changes_options():
            lifecycle.update(obj.name, form.to_document(), cause=cause_of(request))
        self.tell_findings(request)

    def response_add(
        self, request: HttpRequest, obj: Instance, post_url_continue: str | None = None
    ) -> HttpResponse:
        self.message_user(request, f"Made {obj.name}.", messages.SUCCESS)
        return HttpResponseRedirect(self.page_url("change", obj.pk))

    def response_change(self, request: HttpRequest, obj: Instance) -> HttpResponse:
        self.message_user(request, f"Saved the options of {obj.name}.", messages.SUCCESS)
        return HttpResponseRedirect(self.page_url("change", obj.pk))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["show_save_and_continue"] = False
        instance = context.get("original")
        if isinstance(instance, Instance):
            context |= self._detail(request, instance)
            context["curl"] = curl_line(instance.name, request.build_absolute_uri("/").rstrip("/"))
            context["title"] = instance.name
            if self.has_change_permission(request, instance):
                context["command_line"] = sanitize_text(command_line_of(instance))
        else:
            context["parse_url"] = self.page_url("parse_command")
        return super().render_change_form(request, context, *args, **kwargs)

    # -- deleting ---------------------------------------------------------------------------------

    def delete_model(self, request: HttpRequest, obj: Instance) -> None:
        lifecycle.delete(obj.name, cause=cause_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Instance]) -> None:
        for instance in queryset:
            self.delete_model(request, instance)

    @admin.action(description="Delete the selected instances", permissions=["delete"])
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[Instance]
    ) -> HttpResponse | None:
        """Django's action asks first; then each is deleted, or said why it is not."""
        if "post" not in request.POST:
            return confirm_deletion(self, request, queryset)
        deleted = []
        for instance in queryset:
            try:
                with transaction.atomic():
                    self.log_deletions(request, Instance.objects.filter(pk=instance.pk))
                    self.delete_model(request, instance)
            except LlamactlError as error:
                self.message_user(request, f"{instance.name}: {error.details}", messages.ERROR)
            else:
                deleted.append(instance)
        if deleted:
            self.message_user(request, counted("Deleted", deleted), messages.SUCCESS)
        return None

    def get_deleted_objects(
        self, objs: Iterable[Instance], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What the confirmation shows: names, and not the thousand lines of their history."""
        names = [instance.name for instance in objs]
        return names, {"instances": len(names)}, set(), []

    # -- small views ------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path("statuses/", self.protected(self.statuses_view), name=f"{prefix}_statuses"),
            path(
                "parse-command/",
                self.protected(self.parse_command_view),
                name=f"{prefix}_parse_command",
            ),
            path(
                "<path:object_id>/control/",
                self.protected(self.control_view),
                name=f"{prefix}_control",
            ),
            path("<path:object_id>/now/", self.protected(self.now_view), name=f"{prefix}_now"),
        ]
        return own + super().get_urls()

    def statuses_view(self, request: HttpRequest) -> HttpResponse:
        """The statuses of ``?ids=1,2``: ``{"1": {"status", "label"}}``; polled by statuses.js."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        ids = [
            text
            for text in request.GET.get("ids", "").split(",")
            if text.isdecimal() and len(text) < 19
        ]
        rows = Instance.objects.filter(pk__in=ids[:POLLED_AT_ONCE]).only(
            "status", "desired_state", "generation", "observed_generation"
        )
        return JsonResponse({str(row.pk): status_words(row.reported_status) for row in rows})

    def now_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The changing part of the detail page, as HTML; polled by fragment.js."""
        instance = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, instance):
            raise PermissionDenied
        if instance is None:
            raise Http404
        return render(request, "instances/now.html", self._detail(request, instance))

    def parse_command_view(self, request: HttpRequest) -> HttpResponse:
        """POST ``backend_type`` and ``command``: fields and findings, or an error document."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_add_permission(request):
            raise PermissionDenied
        try:
            backend = backend_for(request.POST.get("backend_type", ""))
            parsed = backend.parse_command(request.POST.get("command", ""))
        except LlamactlError as error:
            return JsonResponse(seed_document(error), status=error.status)
        fields = to_fields(backend.type, parsed.backend_options)
        fields |= {"environment": to_lines(parsed.environment), "name": suggested_name(fields)}
        document = {
            "backend_type": backend.type,
            "backend_options": parsed.backend_options,
            "environment": parsed.environment,
        }
        findings = [
            {"severity": finding.severity.value, "text": sanitize_text(finding.text)}
            for finding in check_document(document)
        ]
        return JsonResponse({"fields": fields, "findings": findings})

    def _detail(self, request: HttpRequest, instance: Instance) -> dict[str, Any]:
        return {
            "overview": overview(instance),
            "badge": status_badge(instance),
            "may_control": self.has_change_permission(request, instance),
            "now_url": self.page_url("now", instance.pk),
            "control_url": self.page_url("control", instance.pk),
            "controls": control_buttons(instance),
        }


def status_words(status: Status) -> dict[str, str]:
    return {"status": status.value, "label": str(status.label)}


def status_badge(instance: Instance) -> SafeString:
    """The reported status as a coloured word that statuses.js keeps up to date."""
    status = instance.reported_status
    return format_html(
        '<span class="badge" data-instance="{}" data-status="{}" title="{}">'
        "<span data-label>{}</span></span>",
        instance.pk,
        status.value,
        instance.place_in_queue,
        status.label,
    )
