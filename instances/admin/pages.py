"""Registration of the instances' admin: list columns, filters, actions, paths."""

from __future__ import annotations

from typing import ClassVar

from django import forms
from django.contrib import admin
from django.urls import URLPattern, path

from instances.admin.change_form import ChangeFormAdmin
from instances.admin.change_list import ChangeListAdmin
from instances.admin.deletion import DeletionAdmin
from instances.admin.filters import BackendFilter, StatusFilter
from instances.models import Instance


@admin.register(Instance)
class InstanceAdmin(ChangeListAdmin, ChangeFormAdmin, DeletionAdmin):
    """The instances' admin."""

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
    ordering = ("name",)
    list_per_page = 50
    search_fields = (
        "name",
        "options__backend_options__model__icontains",
        "options__backend_options__hf_repo__icontains",
        "options__group__icontains",
    )
    search_help_text = "Name, model or group"
    actions = ("start_selected", "stop_selected", "restart_selected", "delete_selected")

    class Media:
        css: ClassVar = {"all": ["css/instances.css"]}
        js: ClassVar = [
            forms.Script("js/statuses.js", type="module"),
            forms.Script("js/fragment.js", type="module"),
            forms.Script("js/instance_form.js", type="module"),
            forms.Script("js/copy.js", type="module"),
        ]

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
