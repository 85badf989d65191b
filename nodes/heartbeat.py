"""Heartbeat of a node's worker.

The worker writes the time into the node's row every ``HEARTBEAT_SECONDS``; ``Node.is_alive``
compares the time with ``STALE_AFTER_SECONDS``.
"""

from __future__ import annotations

from django.utils import timezone

from nodes.models import Node


def write_heartbeat(name: str) -> None:
    """Write the heartbeat of a node; the first one creates the node's row."""
    now = timezone.now()
    if not Node.objects.filter(name=name).update(heartbeat_at=now):
        Node.objects.get_or_create(name=name, defaults={"heartbeat_at": now})
