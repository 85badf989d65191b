"""Admin pages of the inference keys: list, issue, edit, revoke."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances.admin.detail import curl_line
from instances.models import Instance
from keys import issuing
from keys.forms import KeyForm
from keys.models import InferenceKey, KeyPermission
from keys.rights import replace_rights
from llamactl.admin.base import DomainAdmin, relative_time
from llamactl.core.links import public_base_url

NAMES_IN_A_ROW = 3


class StateFilter(admin.SimpleListFilter):
    """Filter by validity and use of a key."""

    title = "state"
    parameter_name = "state"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, str]]:
        return [
            ("valid", "valid"),
            ("blocked", "blocked"),
            ("expired", "expired"),
            ("unused", "never used"),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[InferenceKey]
    ) -> QuerySet[InferenceKey] | None:
        now = timezone.now()
        conditions = {
            "valid": Q(is_blocked=False) & (Q(expires_at=None) | Q(expires_at__gt=now)),
            "blocked": Q(is_blocked=True),
            "expired": Q(expires_at__lte=now),
            "unused": Q(last_used_at=None),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


class _IssuingRequest(HttpRequest):
    """A POST that issued a key. The plain text exists as long as this object."""

    plain: str


@admin.register(InferenceKey)
class InferenceKeyAdmin(DomainAdmin[InferenceKey]):
    """Admin pages of ``InferenceKey``."""

    form = KeyForm
    list_display = ("name", "state", "shown_hint", "opens", "expires", "last_used", "created")
    list_filter = (StateFilter, "permission_mode")
    list_per_page = 50
    search_fields = ("name", "hint", "instances__name")
    search_help_text = "Name, last characters or instance"

    class Media:
        css: ClassVar = {"all": ["css/keys.css"]}
        js: ClassVar = [
            forms.Script("js/copy.js", type="module"),
            forms.Script("js/key_form.js", type="module"),
        ]

    # -- the list ---------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[InferenceKey]:
        return super().get_queryset(request).prefetch_related("instances")

    @admin.display(description="state", ordering="expires_at")
    def state(self, key: InferenceKey) -> SafeString:
        status, word = "running", "valid"
        if key.is_expired(_now()):
            status, word = "failed", "expired"
        elif key.is_blocked:
            status, word = "failed", "blocked"
        return format_html('<span class="badge" data-status="{}">{}</span>', status, word)

    @admin.display(description="key", ordering="hint")
    def shown_hint(self, key: InferenceKey) -> SafeString:
        return format_html("<code>…{}</code>", key.hint)

    @admin.display(description="opens", ordering="permission_mode")
    def opens(self, key: InferenceKey) -> str:
        if key.permission_mode == InferenceKey.PermissionMode.ALLOW_ALL:
            return "all instances"
        # .all() uses the prefetched rows; any other call would be a query for each key.
        names = sorted(instance.name for instance in key.instances.all())
        more = len(names) - NAMES_IN_A_ROW
        text = ", ".join(names[:NAMES_IN_A_ROW]) or "no instance (all deleted)"
        return f"{text} and {more} more" if more > 0 else text

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, key: InferenceKey) -> SafeString:
        return relative_time(key.expires_at, _now())

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, key: InferenceKey) -> SafeString:
        return relative_time(key.last_used_at, _now())

    @admin.display(description="issued", ordering="created_at")
    def created(self, key: InferenceKey) -> SafeString:
        return relative_time(key.created_at, _now())

    # Of the form's fields, what an account sees that may only look.

    @admin.display(description="May start")
    def can_start(self, key: InferenceKey) -> str:
        return _named(key.permissions.filter(can_start=True))

    @admin.display(description="May evict for")
    def can_evict(self, key: InferenceKey) -> str:
        return _named(key.permissions.filter(can_evict=True))

    @admin.display(description="May stop")
    def can_stop(self, key: InferenceKey) -> str:
        return _named(key.permissions.filter(can_stop=True))

    # -- the form ---------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: InferenceKey | None = None) -> Any:
        fields = ["name", "permission_mode", "instances"]
        fields += ["can_start", "can_evict", "can_stop", "expires_at"]
        if obj is not None:
            fields += ["is_blocked", *self.readonly_fields]
        return [(None, {"fields": fields})]

    readonly_fields = ("shown_hint", "last_used", "created")

    def save_model(self, request: HttpRequest, obj: InferenceKey, form: Any, change: bool) -> None:
        if change and not form.has_changed():
            return
        if change:
            # Only the form's columns: a web process may write last_used_at at the same time.
            # Unchanged ones stay as they are: the form shows no microseconds.
            columns = {"name", "permission_mode", "expires_at", "is_blocked"} & set(
                form.changed_data
            )
            obj.save(update_fields=[*columns, "updated_at"])
            return
        cleaned = form.cleaned_data
        key, plain = issuing.issue(
            name=cleaned["name"],
            permission_mode=cleaned["permission_mode"],
            rights=form.rights(),
            expires_at=cleaned["expires_at"],
        )
        obj.pk = key.pk
        cast(_IssuingRequest, request).plain = plain

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        if change and form.has_changed():
            replace_rights(form.instance, form.rights())
            issuing.announce_change(form.instance)

    def response_add(
        self, request: HttpRequest, obj: InferenceKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the new key, this once. A redirect would have to store the key on the way."""
        plain = cast(_IssuingRequest, request).plain
        context = {
            **self.admin_site.each_context(request),
            "title": "New key",
            "opts": self.opts,
            "media": self.media,
            "key": obj,
            "plain": plain,
            "curl": curl_line(self._example_instance(obj), public_base_url(request), key=plain),
            "list_url": self.page_url("changelist"),
        }
        return TemplateResponse(
            request,
            "keys/issued.html",
            context,
            # Cache-Control needs no mention: all pages of the admin are no-store.
            headers={"Referrer-Policy": "no-referrer"},
        )

    def _example_instance(self, key: InferenceKey) -> str:
        """Return the name of an instance that the key opens."""
        if key.permission_mode == InferenceKey.PermissionMode.PER_INSTANCE:
            instances = Instance.objects.filter(keys=key.pk)
        else:
            instances = Instance.objects.all()
        return instances.values_list("name", flat=True).first() or "name-of-an-instance"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    # -- revoking ---------------------------------------------------------------------------------

    def delete_model(self, request: HttpRequest, obj: InferenceKey) -> None:
        issuing.revoke([obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[InferenceKey]) -> None:
        issuing.revoke(queryset)

    def get_deleted_objects(
        self, objs: Iterable[InferenceKey], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Name the keys for the confirmation page, without the rows of their instances."""
        names = [f"{key.name} (…{key.hint})" for key in objs]
        return names, {"keys": len(names)}, set(), []


def _named(permissions: QuerySet[KeyPermission]) -> str:
    return ", ".join(sorted(permissions.values_list("instance__name", flat=True)))


def _now() -> datetime:
    return timezone.now()
