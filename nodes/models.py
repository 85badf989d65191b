"""Model of a node."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models

HEARTBEAT_SECONDS = 2.0
STALE_AFTER_SECONDS = 10.0


class Node(models.Model):
    """A host that runs instances: with a worker of this llamactl, or as a peer llamactl."""

    class Kind(models.TextChoices):
        WORKER = "worker", "worker"
        PEER = "peer", "peer"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.WORKER)
    address = models.CharField(
        max_length=255,
        blank=True,
        help_text="Address of the backends (worker) or of the API (peer); empty for this host.",
    )
    heartbeat_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    drained_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="Time of the drain; a drained node starts no instance.",
    )
    resumes = models.JSONField(
        default=list,
        blank=True,
        editable=False,
        help_text="Ids of the instances that the drain stopped; a resume starts them.",
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=["worker", "peer"]), name="node_kind_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_drained(self) -> bool:
        """Whether the node is in maintenance and must not start an instance."""
        return self.drained_at is not None

    def is_alive(self, now: datetime) -> bool:
        """Whether the worker wrote its heartbeat within ``STALE_AFTER_SECONDS``."""
        limit = timedelta(seconds=STALE_AFTER_SECONDS)
        # abs(): a heartbeat from the future means that the clock was set back since.
        return self.heartbeat_at is not None and abs(now - self.heartbeat_at) < limit
