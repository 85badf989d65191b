"""How does a node's worker say that it is alive?

It writes the time into the node's row every ``HEARTBEAT_SECONDS``; ``Node.is_alive`` judges.
"""

from __future__ import annotations

from django.utils import timezone

from nodes.models import Node


def beat(name: str) -> None:
    """Write the heartbeat of the node called ``name``, making its row on first sight."""
    now = timezone.now()
    if not Node.objects.filter(name=name).update(heartbeat_at=now):
        Node.objects.get_or_create(name=name, defaults={"heartbeat_at": now})
