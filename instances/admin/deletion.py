"""Deletion of instances in the admin, one or several at once."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as confirm_deletion
from django.db import transaction
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
)

from instances import lifecycle
from instances.admin.actions import cause_of, counted
from instances.models import Instance
from llamactl.admin.base import DomainAdmin
from llamactl.core.errors import LlamactlError


class DeletionAdmin(DomainAdmin[Instance]):
    """The part of the instances' admin that deletes instances."""

    def delete_model(self, request: HttpRequest, obj: Instance) -> None:
        lifecycle.delete(obj.name, cause=cause_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Instance]) -> None:
        for instance in queryset:
            self.delete_model(request, instance)

    @admin.action(description="Delete the selected instances", permissions=["delete"])
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[Instance]
    ) -> HttpResponse | None:
        """Confirm by Django's action, then delete each instance or report its refusal."""
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
        """Names for the confirmation page; the history would add thousands of lines."""
        names = [instance.name for instance in objs]
        return names, {"instances": len(names)}, set(), []
