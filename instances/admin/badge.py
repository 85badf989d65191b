"""Status badge of an instance: the reported status as a coloured word, with details on hover."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances.errors import BackendStartFailed, StoppedByOperator
from instances.models import Instance

_REASONS = {
    StoppedByOperator.code: "stopped by an operator",
    BackendStartFailed.code: "the last start failed",
}


def hold_text(instance: Instance, now: datetime) -> str:
    """Return the length and the reason of the instance's hold, or an empty text."""
    hold = instance.hold_at(now)
    if hold is None:
        return ""
    return f"no request starts it for {hold.seconds_left(now)} s: {_REASONS[hold.reason]}"


def status_words(instance: Instance, now: datetime) -> dict[str, str]:
    """Return the status, its label and its details, as statuses.js reads them."""
    status = instance.reported_status
    return {
        "status": status.value,
        "label": str(status.label),
        "title": instance.place_in_queue or hold_text(instance, now),
    }


def status_badge(instance: Instance) -> SafeString:
    """Return the badge as HTML, which the list's and the page's scripts keep up to date."""
    words = status_words(instance, timezone.now())
    return format_html(
        '<span class="badge" data-instance="{}" data-node="{}" data-status="{}" title="{}">'
        "<span data-label>{}</span></span>",
        instance.pk,
        instance.node.name,
        words["status"],
        words["title"],
        words["label"],
    )
