"""Status badge of an instance: the reported status as a coloured word."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances.models import Instance
from instances.states import Status


def status_words(status: Status) -> dict[str, str]:
    """Return the status and its label, as statuses.js reads them."""
    return {"status": status.value, "label": str(status.label)}


def status_badge(instance: Instance) -> SafeString:
    """Return the badge as HTML; statuses.js keeps it up to date."""
    status = instance.reported_status
    return format_html(
        '<span class="badge" data-instance="{}" data-status="{}" title="{}">'
        "<span data-label>{}</span></span>",
        instance.pk,
        status.value,
        instance.place_in_queue,
        status.label,
    )
