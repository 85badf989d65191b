"""States of an instance and the legal transitions between them.

Observed state (``Status``)::

    stopped ──▶ starting ──▶ running ──▶ shutting_down ──▶ stopped
                   │  ▲          │
                   │  └─ restarting ◀── (a crash within the restart policy)
                   ▼             ▼
                 failed ◀────────┘

Owners of the arrows: the supervisor of the instance's node owns every arrow above, through
``Instance.transition``. The web side writes the desired state (``DesiredState`` and the generation)
and never a ``Status``. A status states a fact: ``running`` after the first healthy probe,
``stopped`` after the process is reaped.
"""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    """Observed state of an instance, written by its node's supervisor."""

    STOPPED = "stopped", "stopped"
    STARTING = "starting", "starting"
    RUNNING = "running", "running"
    FAILED = "failed", "failed"
    RESTARTING = "restarting", "restarting"
    SHUTTING_DOWN = "shutting_down", "shutting down"


class DesiredState(models.TextChoices):
    """Desired state of an instance, written through ``instances.lifecycle``."""

    RUNNING = "running", "running"
    STOPPED = "stopped", "stopped"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.STOPPED: frozenset({Status.STARTING}),
    Status.STARTING: frozenset(
        {Status.RUNNING, Status.RESTARTING, Status.FAILED, Status.SHUTTING_DOWN, Status.STOPPED}
    ),
    Status.RUNNING: frozenset(
        {Status.SHUTTING_DOWN, Status.RESTARTING, Status.FAILED, Status.STOPPED}
    ),
    Status.RESTARTING: frozenset({Status.STARTING, Status.FAILED, Status.STOPPED}),
    Status.SHUTTING_DOWN: frozenset({Status.STOPPED}),
    Status.FAILED: frozenset({Status.STARTING, Status.STOPPED}),
}

ON_DEMAND = "proxy:on_demand"
"""Origin of a desired state that the proxy requested for a waiting request (an activation)."""
SUPERVISOR = "supervisor:"
"""Prefix of the origins of a desired state that the supervisor itself requested."""
IDLE = SUPERVISOR + "idle"
EVICTED = SUPERVISOR + "evicted"
ABANDONED = SUPERVISOR + "abandoned"
"""The last request that waited for a queued start has disconnected."""

HAS_PROCESS = frozenset({Status.STARTING, Status.RUNNING, Status.SHUTTING_DOWN})
"""Statuses in which a process may exist. They refuse a delete, and outlive a worker."""
