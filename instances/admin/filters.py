"""Filters of the admin's list of instances."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from instances.backends.registry import backend_choices
from instances.models import Instance
from instances.reported_status import with_reported_status
from instances.states import Status


class StatusFilter(admin.SimpleListFilter):
    """Filter by the reported status, as the list shows it."""

    title = "status"
    parameter_name = "status"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, str]]:
        return [(status.value, str(status.label)) for status in Status]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Instance]
    ) -> QuerySet[Instance] | None:
        value = self.value()
        return (
            queryset.filter(with_reported_status(Status(value)))
            if value in Status.values
            else queryset
        )


class BackendFilter(admin.SimpleListFilter):
    """Filter by the type of the backend."""

    title = "backend"
    parameter_name = "backend"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, str]]:
        return backend_choices()

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Instance]
    ) -> QuerySet[Instance] | None:
        value = self.value()
        return queryset.filter(options__backend_type=value) if value else queryset
