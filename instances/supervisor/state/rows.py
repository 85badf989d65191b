"""What do the instances' rows say, and how does what was seen get into them?

Each function is one look or one transaction, and raises django.db.Error.
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
    # wishes
    desired_state: DesiredState
    generation: int
    requested_by: str
    updated_at: datetime
    """When something was wished last."""
    options: Mapping[str, Any]
    port: int
    revision: int
    """The instances' number when it was read, or a later one: the wish is no younger."""
    # what was recorded last; only looked at when the supervisor sees the row for the first time
    status: Status
    observed_generation: int
    pid: int | None
    pid_started_ticks: int | None
    restarts: int
    ready_at: datetime | None
    last_used_at: datetime | None
    queue: Mapping[str, Any] | None

    @property
    def group(self) -> str:
        return str(self.options.get("group", ""))

    @property
    def idle_timeout_seconds(self) -> float:
        """0: it is never stopped for idleness."""
        minutes = self.options.get("idle_timeout", 0)
        return minutes * MINUTE_SECONDS if isinstance(minutes, int) else 0.0

    @property
    def starts_on_demand(self) -> bool:
        return bool(self.options.get("on_demand_start"))

    @property
    def fixed_port(self) -> int | None:
        """The port that the operator chose; ``None`` if any will do."""
        options = self.options.get("backend_options")
        port = options.get("port") if isinstance(options, Mapping) else None
        return port if isinstance(port, int) else None


@dataclass(frozen=True)
class Observation:
    """A status that an instance of this node now has, and the columns that go with it."""

    instance_id: int
    name: str
    old: Status
    new: Status
    cause: str
    reason: str = ""
    columns: Mapping[str, object] = field(default_factory=dict)


def revision() -> int:
    """How often the instances have changed."""
    return Revision.numbers().get(Topic.INSTANCES, 0)


def read_rows(node: str) -> list[Row]:
    """All of the node."""
    instances = list(Instance.objects.filter(node__name=node))
    # Read after them: each change that they show is counted in it.
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
            restarts=instance.restarts,
            ready_at=instance.ready_at,
            last_used_at=instance.last_used_at,
            queue=instance.queue,
        )
        for instance in instances
    ]


def wish_stop(row: Row, cause: str) -> bool:
    """Wish a stop; returns whether nothing else has been wished since ``row`` was read."""
    with transaction.atomic():
        rows = Instance.objects.filter(
            pk=row.id,
            generation=row.generation,
            desired_state=DesiredState.RUNNING,
            requested_by=row.requested_by,
        )
        is_wished = rows.update(desired_state=DesiredState.STOPPED, requested_by=cause) == 1
        if is_wished:
            announce(Topic.INSTANCES, row.name)
    return is_wished


def write_queue(queue: Mapping[int, Mapping[str, object] | None]) -> None:
    """Instance id → what it waits for; ``None``: for nothing any more."""
    with transaction.atomic():
        for pk, document in queue.items():
            Instance.objects.filter(pk=pk).update(queue=document)
        announce(Topic.INSTANCES, "")


def write_last_used(used: Mapping[int, datetime]) -> None:
    """Instance id → when it last was."""
    with transaction.atomic():
        for pk, at in used.items():
            Instance.objects.filter(pk=pk).update(last_used_at=at)


def write(observation: Observation) -> None:
    """Bring the row to what was observed; a row that is gone has nothing to be told."""
    if _transition(observation, observation.old, observation.new, observation.columns):
        return
    # Somebody else has written the status: a commit whose answer was lost, a restored backup.
    # This supervisor knows better, and gets there by legal steps.
    found = Instance.objects.filter(pk=observation.instance_id).values_list("status", flat=True)
    for status in found:
        logger.warning(
            "the database has it %s, not %s as was recorded last",
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
    """The shortest legal way from one status to the other, without the first."""
    ways = deque([[old]])
    seen = {old}
    while ways:
        way = ways.popleft()
        if new in TRANSITIONS[way[-1]] or way[-1] is new:
            return [*way[1:], new]
        for step in sorted(TRANSITIONS[way[-1]] - seen):
            seen.add(step)
            ways.append([*way, step])
    raise ValueError(f"no legal way from {old} to {new}")


def move_port(row: Row, host: str, config: AppConfig) -> int | PortUnavailable:
    """Choose a port that is neither another instance's nor a stranger's, and save it."""
    for attempt in range(PORT_RACES):
        try:
            with transaction.atomic():
                # The lock under which ports are given out elsewhere too.
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
            # A port that an update asked for in the same moment.
            if attempt == PORT_RACES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
