"""Add and change pages of an instance: form sections, saving, state, pasted commands."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances import lifecycle
from instances.admin.actions import ControlsAdmin, cause_of, control_buttons
from instances.admin.badge import status_badge
from instances.admin.detail import curl_line, overview
from instances.admin.form import (
    REQUEST_ROWS,
    SHORT_ROWS,
    STARTING_ROWS,
    InstanceForm,
    process_rows,
)
from instances.admin.form_values import suggested_name, to_fields, to_lines
from instances.admin.preflight import PreflightAdmin, check_document
from instances.backends.pasted import parse_pasted
from instances.backends.registry import backend_for
from instances.dry_run import command_line_of
from instances.masked_options import mask_options
from instances.models import Instance
from llamactl.config import current
from llamactl.core.error_format import seed_document
from llamactl.core.errors import LlamactlError
from llamactl.core.links import public_base_url
from llamactl.core.sanitize import sanitize_json, sanitize_text


class _SavingRequest(HttpRequest):
    """A POST that ``save_model`` updated an instance with."""

    update: lifecycle.Update


class ChangeFormAdmin(ControlsAdmin, PreflightAdmin):
    """The add and change pages of the instances' admin."""

    form = InstanceForm
    readonly_fields = ("options_text",)

    def get_form(
        self,
        request: HttpRequest,
        obj: Instance | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        # All fields are declared by the form; ``lifecycle`` alone writes the model's columns.
        return super().get_form(request, obj, change=change, **{**kwargs, "fields": ()})

    def get_fieldsets(self, request: HttpRequest, obj: Instance | None = None) -> Any:
        if obj is not None and not self.has_change_permission(request, obj):
            return [(None, {"fields": ["options_text"]})]
        first: list[str | tuple[str, ...]] = ["backend_type", *SHORT_ROWS, "further_options"]
        if obj is None:
            config = current()
            other_nodes = set(config.nodes) - {config.local_node}
            first = ["name", "start_now", *(["node"] if other_nodes else []), *first]
        collapsed = {"classes": ["collapse"]}
        return [
            *self.extra_fieldsets(request),
            ("Model", {"fields": first}),
            (
                "Starting and stopping",
                {
                    "fields": STARTING_ROWS,
                },
            ),
            ("Requests", {**collapsed, "fields": REQUEST_ROWS}),
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
        """Options document for users with view permission only; secrets are masked."""
        return format_html(
            '<pre class="log">{}</pre>', sanitize_json(mask_options(instance.options))
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
            update = lifecycle.update(obj.name, form.to_document(), cause=cause_of(request))
            cast(_SavingRequest, request).update = update
        else:
            lifecycle.end_failure_hold(obj.name)
        self.show_findings(request)

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> list[Any]:
        """Return nothing for a save that changed nothing, although a text was written anew."""
        if not add and not _is_changed(request):
            return []
        return super().construct_change_message(request, form, formsets, add)

    def response_add(
        self, request: HttpRequest, obj: Instance, post_url_continue: str | None = None
    ) -> HttpResponse:
        self.message_user(request, f"Created {obj.name}.", messages.SUCCESS)
        return HttpResponseRedirect(self.page_url("change", obj.pk))

    def response_change(self, request: HttpRequest, obj: Instance) -> HttpResponse:
        if not _is_changed(request):
            self.message_user(request, f"Nothing changed in {obj.name}.", messages.INFO)
        else:
            is_restarted = cast(_SavingRequest, request).update.is_restarted
            restart = "; it is restarted" if is_restarted else ""
            text = f"Saved the options of {obj.name}{restart}."
            self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(self.page_url("change", obj.pk))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["show_save_and_continue"] = False
        instance = context.get("original")
        if isinstance(instance, Instance):
            context |= self._detail(request, instance)
            context["curl"] = curl_line(instance.name, public_base_url(request))
            context["title"] = instance.name
            if self.has_change_permission(request, instance):
                context["command_line"] = sanitize_text(command_line_of(instance))
        else:
            context["parse_url"] = self.page_url("parse_command")
        return super().render_change_form(request, context, *args, **kwargs)

    def now_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Changing part of the change page, as HTML; polled by fragment.js."""
        instance = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, instance):
            raise PermissionDenied
        if instance is None:
            raise Http404
        return render(request, "instances/now.html", self._detail(request, instance))

    def parse_command_view(self, request: HttpRequest) -> HttpResponse:
        """POST ``backend_type`` and ``command``: respond with fields and findings, or an error."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_add_permission(request):
            raise PermissionDenied
        try:
            chosen = backend_for(request.POST.get("backend_type", ""))
            pasted = parse_pasted(request.POST.get("command", ""), chosen)
        except LlamactlError as error:
            return JsonResponse(seed_document(error), status=error.status)
        document = pasted.to_document()
        fields = to_fields(pasted.backend.type, pasted.backend_options)
        fields |= {
            "backend_type": pasted.backend.type,
            "environment": to_lines(pasted.environment),
            "name": suggested_name(fields, pasted.backend_options.get(pasted.backend.name_option)),
            "docker_enabled": "true" if pasted.docker_image else "",
            "docker_image": pasted.docker_image,
            "docker_args": pasted.docker_args,
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


def _is_changed(request: HttpRequest) -> bool:
    """Return whether the save of this request changed the instance."""
    update: lifecycle.Update | None = getattr(request, "update", None)
    return update is not None and update.is_changed
