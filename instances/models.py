"""Instances: desired state, observed state, history."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.validators import RegexValidator
from django.db import models, transaction
from django.utils import timezone

from instances import desired_state as desired
from instances.activation_hold import Hold, hold_of
from instances.backends.registry import backend_for
from instances.names import MAX_NAME_LENGTH, NAME_PATTERN
from instances.options import InstanceOptions
from instances.states import TRANSITIONS, DesiredState, Status
from llamactl.core.events import announce
from llamactl.masking import mask_url
from llamactl.models import Topic
from nodes.models import Node


class Instance(models.Model):
    """A named backend.

    Two writers share a row, and each updates its own columns by ``update()``:

    * The web side (``instances.lifecycle``) writes the desired state: ``options``, ``port``,
      ``desired_state``, ``generation``, ``requested_by``, ``stop_hold_until``,
      ``edited_generation``.
    * The supervisor of the node writes the observed state: every column below the comment
      "Observed", and ``port`` if another program listens on the port. The supervisor also requests
      stops (idle timeout, preemption), by an update that fails if the generation has changed.

    Besides, the web processes write ``model_info`` (``instances.learned_model``).

    Observed state; every arrow belongs to the supervisor (``instances.states`` has the table)::

        stopped ──▶ starting ──▶ running ──▶ shutting_down ──▶ stopped
                       │  ▲          │
                       │  └─ restarting ◀── (a crash within the restart policy)
                       ▼             ▼
                     failed ◀────────┘
    """

    name = models.CharField(
        max_length=MAX_NAME_LENGTH,
        unique=True,
        validators=[RegexValidator(f"^{NAME_PATTERN}$")],
    )
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="instances")
    options = models.JSONField()
    port = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    desired_state = models.CharField(
        max_length=10, choices=DesiredState.choices, default=DesiredState.STOPPED
    )
    generation = models.PositiveIntegerField(
        default=0, help_text="Number of the last requested process: each start or restart adds 1."
    )
    requested_by = models.CharField(
        max_length=200,
        default="",
        editable=False,
        db_column="wish_cause",
        help_text="Origin of the desired state: api, admin:<user>, proxy:on_demand, "
        "supervisor:idle …",
    )

    stop_hold_until = models.DateTimeField(
        null=True,
        editable=False,
        help_text="Before this time no request undoes an operator's stop.",
    )
    edited_generation = models.PositiveIntegerField(
        default=0,
        editable=False,
        help_text="Generation at the last edit: a failure of it is no failure of these options.",
    )

    # Observed: written by the supervisor of the node alone.
    status = models.CharField(
        max_length=15, choices=Status.choices, default=Status.STOPPED, editable=False
    )
    observed_generation = models.PositiveIntegerField(default=0, editable=False)
    pid = models.PositiveIntegerField(null=True, editable=False)
    pid_started_ticks = models.BigIntegerField(
        null=True,
        editable=False,
        help_text="/proc/<pid>/stat field 22: tells a reused pid.",
    )
    launch_id = models.CharField(
        max_length=50,
        default="",
        # Inserts by the release before, during an upgrade, do not name the column.
        db_default="",
        editable=False,
        help_text="Id of the process: a part of the derivation of its key.",
    )
    restarts = models.PositiveIntegerField(default=0, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    ready_at = models.DateTimeField(null=True, editable=False)
    failure = models.JSONField(
        null=True, editable=False, help_text="reason, details, exit_code, log_tail of a failure."
    )
    failed_starts = models.PositiveIntegerField(
        default=0,
        editable=False,
        help_text="Failed starts in a row that requests caused.",
    )
    failure_hold_until = models.DateTimeField(
        null=True,
        editable=False,
        help_text="Before this time requests get the recorded failure, without a start.",
    )
    last_used_at = models.DateTimeField(null=True, editable=False)
    queue = models.JSONField(
        null=True,
        editable=False,
        help_text="place, length, reason: while the start waits for capacity.",
    )

    # Learnt by the web processes from a running backend.
    model_info = models.JSONField(
        null=True,
        editable=False,
        help_text="Facts about the model, with a digest of the launch options they belong to.",
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["node", "port"], name="instance_port_once_per_node"),
            models.CheckConstraint(
                condition=models.Q(status__in=Status.values), name="instance_status_known"
            ),
            models.CheckConstraint(
                condition=models.Q(desired_state__in=DesiredState.values),
                name="instance_desired_state_known",
            ),
            models.CheckConstraint(
                condition=models.Q(port__gte=1, port__lte=65535), name="instance_port_in_range"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def parsed_options(self) -> InstanceOptions:
        return InstanceOptions.from_document(self.options)

    @property
    def has_pending_generation(self) -> bool:
        return desired.has_pending_generation(self)

    @property
    def should_run(self) -> bool:
        return desired.should_run(self)

    @property
    def reported_status(self) -> Status:
        """Status to show: the observed status, or the status that a pending generation leads to.

        Right after ``POST …/start`` or ``…/restart`` the node has observed nothing yet. "stopped"
        would read as a refusal, "failed" as the outcome of this start instead of the previous
        start, and "running" as a restart that is over.
        """
        observed = Status(self.status)
        if self.desired_state == DesiredState.RUNNING:
            return Status.STARTING if self.has_pending_generation else observed
        resting = observed in (Status.STOPPED, Status.FAILED)
        return observed if resting else Status.SHUTTING_DOWN

    @property
    def place_in_queue(self) -> str:
        """``place 1 of 2`` while the start waits for capacity, else an empty text."""
        if not self.queue or not self.should_run:
            return ""
        return f"place {self.queue['place']} of {self.queue['length']}"

    def hold_at(self, now: datetime) -> Hold | None:
        """Return the hold that refuses requests, or ``None``.

        ``None`` also for an instance without on-demand start, which no request starts anyway.
        """
        return hold_of(self, now) if self.options.get("on_demand_start", True) else None

    @property
    def summary(self) -> str:
        """Short name of the served model: its file name or repository, without a password."""
        options = self.parsed_options
        return mask_url(backend_for(options.backend_type).summary(options.backend_options))

    def transition(
        self,
        to: Status,
        *,
        reason: str = "",
        cause: str,
        **observed: Any,
    ) -> bool:
        """Change the status and the given observed columns; every status change goes through here.

        The update is conditional on the status that this object was read with; returns whether the
        update succeeded. ``cause`` is the origin (``supervisor:crash``), ``reason`` a sentence for
        the history. Raises ValueError for a transition that ``TRANSITIONS`` does not contain.
        """
        old = Status(self.status)
        if to is not old and to not in TRANSITIONS[old]:
            raise ValueError(f"{self.name}: {old} → {to} is not a legal transition")
        with transaction.atomic():
            rows = Instance.objects.filter(pk=self.pk, status=old)
            won = rows.update(status=to, **observed) == 1
            if won:
                if to is not old:
                    StatusChange.objects.create(
                        instance=self, old=old, new=to, reason=reason, cause=cause
                    )
                announce(Topic.INSTANCES, self.name)
        if won:
            self.status = to
            for name, value in observed.items():
                setattr(self, name, value)
        return won


class StatusChange(models.Model):
    """One transition in the history of an instance: time, statuses, reason, cause."""

    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="history")
    at = models.DateTimeField(default=timezone.now)
    old = models.CharField(max_length=15, choices=Status.choices)
    new = models.CharField(max_length=15, choices=Status.choices)
    reason = models.TextField(blank=True)
    cause = models.CharField(max_length=60)

    class Meta:
        ordering = ["-at", "-id"]
        # Read by the history of the instance's admin page.
        indexes = [models.Index(fields=["instance", "-at"])]

    def __str__(self) -> str:
        return f"{self.instance_id}: {self.old} → {self.new}"
