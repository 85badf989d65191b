"""Which states an instance has, and which changes between them are legal.

::

    stopped ──▶ starting ──▶ running ──▶ shutting_down ──▶ stopped
                   │  ▲          │
                   │  └─ restarting ◀── (a crash that the restart policy forgives)
                   ▼             ▼
                 failed ◀────────┘

The web side writes wishes (``DesiredState`` and the generation) and never a ``Status``; every
arrow above belongs to the supervisor of the instance's node. A status states a fact: ``running``
after the first healthy probe, ``stopped`` once the process has been reaped.
"""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    STOPPED = "stopped", "stopped"
    STARTING = "starting", "starting"
    RUNNING = "running", "running"
    FAILED = "failed", "failed"
    RESTARTING = "restarting", "restarting"
    SHUTTING_DOWN = "shutting_down", "shutting down"


class DesiredState(models.TextChoices):
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
"""The cause of a wish that a waiting request made."""
SUPERVISOR = "supervisor:"
"""How the causes begin of wishes that the supervisor itself made."""
IDLE = SUPERVISOR + "idle"
EVICTED = SUPERVISOR + "evicted"
ABANDONED = SUPERVISOR + "abandoned"
"""Nobody waits any more for a start that had to wait for room."""

HAS_PROCESS = frozenset({Status.STARTING, Status.RUNNING, Status.SHUTTING_DOWN})
"""Statuses in which a process may exist: those that refuse a delete and survive a worker."""
