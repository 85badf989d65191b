"""Rows of the list of instances, as the live pages get them: status, and the HTML of each cell."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.contrib import admin
from django.utils import timezone
from django.utils.html import conditional_escape

from instances.admin.badge import status_words
from instances.admin.change_list import with_columns
from instances.models import Instance

CELLS = (
    "status_badge",
    "served_model",
    "port",
    "node",
    "key_count",
    "last_change",
    "queue_place",
)
"""The columns that may change. The buttons are left out: their stylesheet follows the status."""


@dataclass(frozen=True)
class LiveRow:
    """One row, equal to another one that looks the same."""

    pk: int
    name: str
    status: str
    cells: tuple[tuple[str, str], ...]
    is_held: bool
    """Whether the row tells the seconds of a hold, and so differs a moment later."""

    def to_document(self) -> dict[str, object]:
        return {"status": self.status, "cells": dict(self.cells)}


def read_rows(names: Collection[str] | None = None) -> list[LiveRow]:
    """Read and render the rows of these names, or all rows, in one query."""
    now = timezone.now()
    instances = Instance.objects.defer("failure")
    if names is not None:
        instances = instances.filter(name__in=names)
    return [_to_row(each) for each in with_columns(instances, now)]


def _to_row(instance: Instance) -> LiveRow:
    page = admin.site.get_model_admin(Instance)
    cells = []
    for name in CELLS:
        column = getattr(page, name, None)
        text = getattr(instance, name) if column is None else column(instance)
        cells.append((name, str(conditional_escape(text))))
    now = timezone.now()
    words = status_words(instance, now)
    return LiveRow(
        pk=instance.pk,
        name=instance.name,
        status=words["status"],
        cells=tuple(cells),
        is_held=instance.hold_at(now) is not None,
    )
