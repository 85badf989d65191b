"""What does the database say is wished, and how does it learn what was seen?

Everything the supervisor wants of the database goes through here, in order, on a thread of its
own. A database that is slow, locked or away therefore delays the records and nothing else: what was
seen stays in this queue until it is written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import django.db
from django.db import IntegrityError, close_old_connections, connections, transaction

from instances.errors import PortUnavailable
from instances.models import Instance
from instances.ports import choose_port, is_bindable
from instances.states import TRANSITIONS, DesiredState, Status
from llamactl.config import AppConfig
from llamactl.events import announce
from llamactl.models import Revision, Topic
from nodes.heartbeat import beat
from nodes.models import Node

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
PORT_RACES = 5
MINUTE_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """An instance as the database has it."""

    id: int
    name: str
    # wishes
    desired_state: DesiredState
    generation: int
    wish_cause: str
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


@dataclass(frozen=True)
class _Job:
    work: Callable[[], Callable[[], None]]
    """Does it, and returns what is then to be called on the supervisor's thread."""
    name: str


class Ledger:
    """A queue to the database, and a thread that works it off."""

    def __init__(
        self,
        node: str,
        config: AppConfig,
        post: Callable[[Callable[[], None]], None],
        on_rows: Callable[[list[Row]], None],
    ) -> None:
        """``post`` runs a call on the supervisor's thread; ``on_rows`` gets what ``look`` found."""
        self._node = node
        self._config = config
        self._post = post
        self._on_rows = on_rows
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._look_wanted = False
        self._must_read = False
        self._read_at_revision = -1
        self._beat_wanted = False
        self._closing = threading.Event()
        self._close_by = 0.0
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    # -- called on the supervisor's thread; none of these blocks ----------------------------------

    def start(self) -> None:
        self._thread.start()

    def record(self, observation: Observation, then: Callable[[int], None] | None = None) -> None:
        """Write what was seen; ``then`` gets the revision of the instances that tells of it."""

        def work() -> Callable[[], None]:
            _write(observation)
            if then is None:
                return lambda: None
            revision = _revision()
            return lambda: then(revision)

        self._add(_Job(work, observation.name))

    def move_port(self, row: Row, host: str, then: Callable[[int | PortUnavailable], None]) -> None:
        """Give the instance another port, free at ``host``; ``then`` gets it, or why not."""

        def work() -> Callable[[], None]:
            answer = _move_port(row, host, self._config)
            return lambda: then(answer)

        self._add(_Job(work, row.name))

    def wish_stop(self, row: Row, cause: str, then: Callable[[bool], None]) -> None:
        """Wish a stop, unless something else has been wished since ``row`` was read.

        ``then`` gets whether that is so.
        """

        def work() -> Callable[[], None]:
            is_wished = _wish_stop(row, cause)
            return lambda: then(is_wished)

        self._add(_Job(work, row.name))

    def write_queue(self, queue: Mapping[int, Mapping[str, object] | None]) -> None:
        """Instance id → what it waits for; ``None``: for nothing any more."""
        self._add(_Job(lambda: _write_queue(queue), "the queue"))

    def write_last_used(self, used: Mapping[int, datetime]) -> None:
        """Instance id → when it last was."""
        self._add(_Job(lambda: _write_last_used(used), "last use"))

    def look(self, *, even_if_unchanged: bool = True) -> None:
        """Read the rows of the node, once everything before is written.

        Whoever changes one counts that in the revision, which is cheaper to read than all of them.
        """
        with self._changed:
            self._look_wanted = True
            self._must_read |= even_if_unchanged
            self._changed.notify()

    def beat(self) -> None:
        """Write the node's heartbeat."""
        with self._changed:
            self._beat_wanted = True
            self._changed.notify()

    def close(self, patience_seconds: float) -> None:
        """Write what is left, unless the database can't be reached for so long. Blocks."""
        with self._changed:
            self._close_by = time.monotonic() + patience_seconds
            self._closing.set()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience_seconds + 1.0)
        if self._jobs:
            logger.error("%d observations were not written", len(self._jobs))

    def _add(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_done():
                try:
                    self._work()
                except django.db.Error as error:
                    self._back_off(error)
                except Exception as error:
                    logger.exception("the ledger met something unforeseen")
                    self._back_off(error)
                else:
                    self._recovered()
        finally:
            connections.close_all()

    def _is_done(self) -> bool:
        with self._changed:
            while not self._closing.is_set():
                if self._jobs or self._look_wanted or self._beat_wanted:
                    return False
                self._changed.wait()
            return not self._jobs or time.monotonic() >= self._close_by

    def _work(self) -> None:
        """Write everything that waits, then read, if somebody wants to know.

        Raises django.db.Error.
        """
        close_old_connections()
        if self._beat_wanted:
            self._beat_wanted = False
            beat(self._node)
        while self._jobs:
            self._do(self._jobs[0])
            self._jobs.popleft()
        if self._look_wanted:
            self._look_wanted = False
            self._look()

    def _look(self) -> None:
        must_read, self._must_read = self._must_read, False
        revision = _revision()
        if revision == self._read_at_revision and not must_read:
            return
        self._read_at_revision = -1  # should this fail, the next look makes up for it
        rows = _read_rows(self._node)
        self._read_at_revision = revision
        self._post(lambda: self._on_rows(rows))

    def _do(self, job: _Job) -> None:
        try:
            self._post(job.work())
        except (django.db.IntegrityError, django.db.DataError):
            # The database is there and says no, and would next time too.
            logger.exception("an observation can't be written", extra={"instance": job.name})
        except django.db.Error:
            raise
        except Exception:
            logger.exception("an observation can't be written", extra={"instance": job.name})

    def _back_off(self, error: Exception) -> None:
        if self._failures == 0:
            logger.warning("the database does not answer, supervising from memory: %s", error)
        # A connection in an unknown state is of no use; the next try makes another one.
        connections["default"].close()
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_PAUSE_SECONDS)
        self._failures += 1
        if not self._closing.wait(pause):
            return
        # The last tries, until the patience of whoever closes this ends.
        time.sleep(FIRST_PAUSE_SECONDS)

    def _recovered(self) -> None:
        if self._failures:
            logger.info("the database answers again")
            self._failures = 0


def _revision() -> int:
    return Revision.numbers().get(Topic.INSTANCES, 0)


def _read_rows(node: str) -> list[Row]:
    instances = list(Instance.objects.filter(node__name=node))
    # Read after them: each change that they show is counted in it.
    revision = _revision()
    return [
        Row(
            id=instance.pk,
            name=instance.name,
            desired_state=DesiredState(instance.desired_state),
            generation=instance.generation,
            wish_cause=instance.wish_cause,
            updated_at=instance.updated_at,
            options=instance.options,
            port=instance.port,
            revision=revision,
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


def _wish_stop(row: Row, cause: str) -> bool:
    with transaction.atomic():
        rows = Instance.objects.filter(
            pk=row.id,
            generation=row.generation,
            desired_state=DesiredState.RUNNING,
            wish_cause=row.wish_cause,
        )
        is_wished = rows.update(desired_state=DesiredState.STOPPED, wish_cause=cause) == 1
        if is_wished:
            announce(Topic.INSTANCES, row.name)
    return is_wished


def _write_queue(queue: Mapping[int, Mapping[str, object] | None]) -> Callable[[], None]:
    with transaction.atomic():
        for pk, document in queue.items():
            Instance.objects.filter(pk=pk).update(queue=document)
        announce(Topic.INSTANCES, "")
    return lambda: None


def _write_last_used(used: Mapping[int, datetime]) -> Callable[[], None]:
    with transaction.atomic():
        for pk, at in used.items():
            Instance.objects.filter(pk=pk).update(last_used_at=at)
    return lambda: None


def _write(observation: Observation) -> None:
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


def _move_port(row: Row, host: str, config: AppConfig) -> int | PortUnavailable:
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
