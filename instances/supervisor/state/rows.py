"""Reads and writes of the instances' rows.

Each function is one query or one transaction, and raises django.db.Error.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from instances.errors import PortUnavailable
from instances.models import Instance
from instances.ports import choose_port, is_bindable
from instances.states import TRANSITIONS, DesiredState, Status
from llamactl.config import AppConfig
from llamactl.core.events import announce
from llamactl.models import Revision, Topic
from nodes.models import Node

logger = logging.getLogger(__name__)

PORT_RACES = 5
MINUTE_SECONDS = 60.0


@dataclass(frozen=True)
class Row:
    """An instance as the database has it."""

    id: int
    name: str
    # desired state
    desired_state: DesiredState
    generation: int
    requested_by: str
    updated_at: datetime
    """Time of the last change of the desired state or the options."""
    options: Mapping[str, Any]
    port: int
    revision: int
    """Revision of the instances that includes the desired state of this row."""
    # observed state; used only when the worker sees the instance for the first time
    status: Status
    observed_generation: int
    pid: int | None
    pid_started_ticks: int | None
    launch_id: str
    restarts: int
    ready_at: datetime | None
    last_used_at: datetime | None
    queue: Mapping[str, Any] | None
    failed_starts: int = 0
    # desired state
    edited_generation: int = 0
    """Generation at the last edit of the options."""

    @property
    def group(self) -> str:
        return str(self.options.get("group", ""))

    @property
    def idle_timeout_seconds(self) -> float:
        """Idle timeout; 0 for an instance that is never stopped for idleness."""
        minutes = self.options.get("idle_timeout", 0)
        return minutes * MINUTE_SECONDS if isinstance(minutes, int) else 0.0

    @property
    def is_pinned(self) -> bool:
        return bool(self.options.get("pinned"))

    @property
    def starts_on_demand(self) -> bool:
        return bool(self.options.get("on_demand_start"))

    @property
    def fixed_port(self) -> int | None:
        """The port that the operator chose; ``None`` for an instance with any free port."""
        options = self.options.get("backend_options")
        port = options.get("port") if isinstance(options, Mapping) else None
        return port if isinstance(port, int) else None


@dataclass(frozen=True)
class Observation:
    """A new status of an instance, with the columns that change with it."""

    instance_id: int
    name: str
    old: Status
    new: Status
    cause: str
    reason: str = ""
    columns: Mapping[str, object] = field(default_factory=dict)


def revision() -> int:
    """Read the revision of the instances, which counts their changes."""
    return Revision.numbers().get(Topic.INSTANCES, 0)


def read_rows(node: str) -> list[Row]:
    """Read the instances of the node."""
    instances = list(Instance.objects.filter(node__name=node))
    # Read after the rows, so that the revision includes each change that they show.
    number = revision()
    return [
        Row(
            id=instance.pk,
            name=instance.name,
            desired_state=DesiredState(instance.desired_state),
            generation=instance.generation,
            requested_by=instance.requested_by,
            updated_at=instance.updated_at,
            options=instance.options,
            port=instance.port,
            revision=number,
            status=Status(instance.status),
            observed_generation=instance.observed_generation,
            pid=instance.pid,
            pid_started_ticks=instance.pid_started_ticks,
            launch_id=instance.launch_id,
            restarts=instance.restarts,
            ready_at=instance.ready_at,
            last_used_at=instance.last_used_at,
            queue=instance.queue,
            failed_starts=instance.failed_starts,
            edited_generation=instance.edited_generation,
        )
        for instance in instances
    ]


def request_stop(row: Row, cause: str) -> bool:
    """Request a stop, unless the desired state has changed since ``row`` was read.

    Returns whether the stop is requested.
    """
    with transaction.atomic():
        rows = Instance.objects.filter(
            pk=row.id,
            generation=row.generation,
            desired_state=DesiredState.RUNNING,
            requested_by=row.requested_by,
        )
        is_requested = rows.update(desired_state=DesiredState.STOPPED, requested_by=cause) == 1
        if is_requested:
            announce(Topic.INSTANCES, row.name)
    return is_requested


def write_queue(queue: Mapping[int, Mapping[str, object] | None]) -> None:
    """Write instance id → place in the queue; ``None`` for an instance that waits no more."""
    with transaction.atomic():
        for pk, document in queue.items():
            Instance.objects.filter(pk=pk).update(queue=document)
        announce(Topic.INSTANCES, "")


def write_last_used(used: Mapping[int, datetime]) -> None:
    """Write instance id → time of the last use."""
    with transaction.atomic():
        for pk, at in used.items():
            Instance.objects.filter(pk=pk).update(last_used_at=at)


def write(observation: Observation) -> None:
    """Write an observation; nothing is written to a deleted row."""
    if _transition(observation, observation.old, observation.new, observation.columns):
        return
    # Another program has written the status (a restored backup), or the answer to an earlier commit
    # was lost. The observation is newer, and the row gets there by allowed transitions.
    found = Instance.objects.filter(pk=observation.instance_id).values_list("status", flat=True)
    for status in found:
        logger.warning(
            "the status in the database is %s, not %s as last written",
            status,
            observation.old.value,
            extra={"instance": observation.name},
        )
        here = Status(status)
        for step in steps_between(here, observation.new):
            is_last = step is observation.new
            _transition(observation, here, step, observation.columns if is_last else {})
            here = step


def _transition(
    observation: Observation, old: Status, new: Status, columns: Mapping[str, object]
) -> bool:
    instance = Instance(pk=observation.instance_id, name=observation.name, status=old)
    return instance.transition(new, reason=observation.reason, cause=observation.cause, **columns)


def steps_between(old: Status, new: Status) -> list[Status]:
    """Return the shortest allowed way between two statuses, without the first."""
    ways = deque([[old]])
    seen = {old}
    while ways:
        way = ways.popleft()
        if new in TRANSITIONS[way[-1]] or way[-1] is new:
            return [*way[1:], new]
        for step in sorted(TRANSITIONS[way[-1]] - seen):
            seen.add(step)
            ways.append([*way, step])
    raise ValueError(f"no allowed way from {old} to {new}")


def move_port(row: Row, host: str, config: AppConfig) -> int | PortUnavailable:
    """Save a port that no other instance has and no other program listens on."""
    for attempt in range(PORT_RACES):
        try:
            with transaction.atomic():
                # The lock that every choice of a port takes.
                node = Node.objects.select_for_update(of=("self",)).get(instances=row.id)
                others = Instance.objects.filter(node=node).exclude(pk=row.id)
                taken = set(others.values_list("port", flat=True)) | {row.port}
                port = choose_port(None, taken, config)
                while not is_bindable(port, host):
                    taken.add(port)
                    port = choose_port(None, taken, config)
                Instance.objects.filter(pk=row.id).update(port=port)
                announce(Topic.INSTANCES, row.name)
                return port
        except PortUnavailable as error:
            return error
        except Node.DoesNotExist:
            return PortUnavailable("the instance was deleted")
        except IntegrityError:
            # An update has taken the port in the same moment.
            if attempt == PORT_RACES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
