"""Parts of an instance's page, as the live pages get them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.template.loader import render_to_string
from django.utils import timezone

from instances.admin.badge import status_badge
from instances.admin.detail import last_lines, overview
from instances.models import Instance

LOG = "log"
PARTS = ("facts", "trouble", LOG, "history")
"""The parts of templates/instances/now.html that change by themselves."""


@dataclass(frozen=True)
class LiveParts:
    """An instance's page at one moment."""

    instance: Instance
    parts: Mapping[str, str]
    """Name of a part → HTML."""
    is_held: bool
    """Whether the page tells the seconds of a hold, and so differs a moment later."""


def read_parts(pk: int) -> LiveParts | None:
    """Read and render the page of an instance; ``None`` for a deleted one."""
    instance = Instance.objects.select_related("node").filter(pk=pk).first()
    if instance is None:
        return None
    context = {"overview": overview(instance), "badge": status_badge(instance)}
    is_held = instance.hold_at(timezone.now()) is not None
    return LiveParts(instance, {name: _render(name, context) for name in PARTS}, is_held)


def read_last_used(pks: Collection[int]) -> dict[int, datetime | None]:
    return dict(Instance.objects.filter(pk__in=pks).values_list("pk", "last_used_at"))


def read_log(instance: Instance) -> str:
    """Read and render the log alone; needs no database, as the node is loaded."""
    log, problem = last_lines(instance)
    return _render(LOG, {"overview": {"log": log, "log_problem": problem}})


def _render(name: str, context: dict[str, Any]) -> str:
    return render_to_string(f"instances/now/{name}.html", context)
