"""What runs on this node, and what should?

One thread owns every backend process of the node. It sleeps until something happens (a process
exits, somebody wakes it, an answer arrives) or is due, takes in what that was, and lets each
instance take its next step. Whatever could block (health checks, the broker, docker, the database)
happens on other threads, whose answers come back as calls on this one; so there is one writer and
no lock.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TypeVar

from django.utils import timezone

from instances.supervisor.context import NEVER, SupervisorContext
from instances.supervisor.controller import health_check
from instances.supervisor.controller.controller import InstanceController
from instances.supervisor.controller.start import instance_marker
from instances.supervisor.log_rotation import LogRotation
from instances.supervisor.orphans.guard import OrphanGuard
from instances.supervisor.process import adoption
from instances.supervisor.process.adoption import Sighting
from instances.supervisor.process.pidfd import Marker, Process
from instances.supervisor.scheduling.scheduler import Scheduler
from instances.supervisor.scheduling.traffic_monitor import TrafficMonitor
from instances.supervisor.state.rows import Row
from instances.supervisor.state.store import StateStore
from instances.supervisor.wakeup import Wakeup
from llamactl.config import AppConfig
from llamactl.core.locks import Locked, acquire
from nodes.models import HEARTBEAT_SECONDS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often is looked unasked whether rows have changed: what a lost wake-up costs at most."""
READ_SECONDS = 15.0
"""How often they are read in any case, should a change not have been counted as one."""
LOCK_POLL_SECONDS = 0.2
LEDGER_PATIENCE_SECONDS = 5.0
"""How long the end of the worker waits for a database that does not answer."""
PAUSE_AFTER_ERROR_SECONDS = 1.0
MOST_FAULTS = 5
"""Mistakes in a row in one instance's supervision, after which it fails."""
OFF_THREADS = 8

T = TypeVar("T")


class Supervisor:
    """The owner of a node's backends. ``start`` and ``stop`` it once; ``wake`` it at any time."""

    def __init__(
        self,
        node: str,
        config: AppConfig,
        *,
        key_for: Callable[[int], str],
        clock: Callable[[], float] = time.monotonic,
        is_ready: Callable[[str, tuple[str, ...], str], bool] = health_check.is_ready,
    ) -> None:
        """``key_for``: instance id → the key that llamactl shares with its backend."""
        self._node = node
        self._config = config
        self._clock = clock
        self._lock_path = config.data_dir.resolve() / f"node-{node}.lock"
        self._bell = Wakeup()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._off_threads = ThreadPoolExecutor(OFF_THREADS, thread_name_prefix="supervisor")
        self._ledger = StateStore(node, config, self._post, self._take_rows)
        self._traffic = TrafficMonitor(self._off_thread, clock)
        self._arbiter = Scheduler(config, self._ledger, self._traffic, clock)
        self._rule_held_until = 0.0
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._exits: dict[int, Callable[[], None]] = {}
        self._instances: dict[int, InstanceController] = {}
        self._orphans: list[InstanceController] = []
        self._orphan_guard = OrphanGuard(config, self._lock_path, watch=self._watch, clock=clock)
        self._started_at: datetime | None = None
        self._has_adopted = False
        self._is_leaving = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._surroundings = SupervisorContext(
            config=config,
            node_marker=str(self._lock_path),
            ledger=self._ledger,
            off_thread=self._off_thread,
            watch=self._watch,
            key_for=key_for,
            clock=clock,
            is_ready=is_ready,
            traffic=self._traffic.now,
        )
        self._rotation = LogRotation(config, self._off_thread, clock)

    # -- from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to supervise, once no other worker of the node does. Returns at once."""
        global _running
        _running = self
        self._started_at = timezone.now()
        self._thread.start()

    def wake(self) -> None:
        """Somebody has written a wish: look at the rows now."""
        self._post(self._ledger.look)

    def stop(self, *, quickly: bool = False) -> None:
        """End the supervision; blocks until it has ended.

        Backends run on for the next worker, or are stopped too (``instances.keep_backends``); a
        stop that is under way is finished in any case. ``quickly`` waits for no request and only
        seconds for anything else.
        """
        global _running
        self._post(partial(self._leave, quickly=quickly))
        limits = self._config.instances
        patience = 10.0 if quickly else limits.drain_timeout + 2 * limits.stop_timeout + 10.0
        self._thread.join(patience)
        if self._thread.is_alive():
            logger.error("not everything ended within %g s", patience, extra={"node": self._node})
        if _running is self:
            _running = None

    def _post(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the supervisor's thread, soon."""
        self._calls.put(call)
        self._bell.ring()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        """1. Own the node. 2. Supervise. 3. Write down what is left to write, and let go."""
        lock = self._wait_for_lock()
        try:
            if lock is not None:
                self._ledger.start()
                self._supervise()
        except Exception:
            logger.exception("the supervisor ended", extra={"node": self._node})
        finally:
            self._close(lock)

    def _supervise(self) -> None:
        next_look = next_beat = next_read = self._clock()
        while not self._is_done():
            now = self._clock()
            if now >= next_beat:
                self._ledger.beat()
                next_beat = now + HEARTBEAT_SECONDS
            if now >= next_look:
                self._ledger.look(even_if_unchanged=now >= next_read)
                next_look = now + LOOK_SECONDS
                next_read = next_read if now < next_read else now + READ_SECONDS
            self._step_all(now)
            self._rule(now)
            self._rotation.step(now, self._running_names())
            if self._has_adopted:  # until then the guard of the worker before knows more
                self._orphan_guard.step(now, (each.identity for each in self._everybody()))
            if not self._is_done():
                self._sleep(
                    min(
                        next_look,
                        next_beat,
                        self._rotation.due,
                        self._orphan_guard.due,
                        self._next_due(),
                    )
                )

    def _step_all(self, now: float) -> None:
        for instance in self._everybody():
            if now >= instance.held_until:
                self._guard(instance, instance.step)
        self._orphans = [each for each in self._orphans if each.has_process]
        self._instances = {
            pk: each for pk, each in self._instances.items() if not each.is_forgotten
        }

    def _rule(self, now: float) -> None:
        if self._is_leaving or now < self._rule_held_until:
            return
        try:
            self._arbiter.rule(now, tuple(self._instances.values()))
        except Exception:
            logger.exception("no room can be given", extra={"node": self._node})
            self._rule_held_until = self._arbiter.due = now + PAUSE_AFTER_ERROR_SECONDS

    def _guard(self, instance: InstanceController, call: Callable[[], None]) -> None:
        """A mistake in one instance's supervision must not end everybody else's."""
        try:
            call()
        except Exception as error:
            logger.exception("its supervision failed", extra={"instance": instance.name})
            instance.held_until = self._clock() + PAUSE_AFTER_ERROR_SECONDS
            instance.faults += 1
            if instance.faults >= MOST_FAULTS:
                self._call(partial(instance.give_up, error))
        else:
            instance.faults = 0

    def _next_due(self) -> float:
        dues = [max(each.due, each.held_until) for each in self._everybody()]
        return min([*dues, NEVER if self._is_leaving else self._arbiter.due])

    def _sleep(self, until: float) -> None:
        """Until something is due or happens; then take in what happened."""
        seconds = max(0.0, until - self._clock())
        for descriptor, _ in self._poll.poll(math.ceil(seconds * 1000)):
            if descriptor == self._bell.fileno():
                self._bell.quiet()
            else:
                self._poll.unregister(descriptor)
                self._call(self._exits.pop(descriptor))
        while not self._calls.empty():
            self._call(self._calls.get())

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            logger.exception("a call failed", extra={"node": self._node})

    def _everybody(self) -> Iterable[InstanceController]:
        return (*self._instances.values(), *self._orphans)

    def _running_names(self) -> Iterator[str]:
        return (each.name for each in self._instances.values() if each.is_running)

    # -- the surroundings of an instance ----------------------------------------------------------

    def _watch(self, process: Process, on_exit: Callable[[], None]) -> None:
        self._exits[process.fileno()] = on_exit
        self._poll.register(process, select.POLLIN)

    def _off_thread(self, work: Callable[[], T], then: Callable[[T], None], *, on_error: T) -> None:
        def run() -> None:
            try:
                result = work()
            except Exception:
                logger.exception("a call off the supervisor's thread failed")
                result = on_error
            self._post(lambda: then(result))

        self._off_threads.submit(run)

    # -- the rows ---------------------------------------------------------------------------------

    def _take_rows(self, rows: list[Row]) -> None:
        """The rows of the node, as the ledger just read them; the first ones end in adoption."""
        if self._is_leaving:
            return
        known = {row.id: row for row in rows}
        for pk, instance in self._instances.items():
            instance.see(known.get(pk))
        sightings = [] if self._has_adopted else self._unowned_backends()
        for row in rows:
            if row.id not in self._instances:
                instance = InstanceController(row.name, row, self._surroundings)
                self._instances[row.id] = instance
                self._guard(instance, partial(self._adopt, instance, row, sightings))
        for sighting in sightings:
            logger.warning(
                "process %d (%s) belongs to nobody", sighting.pid, sighting.marker.instance
            )
            self._end(sighting)
        self._has_adopted = True

    def _unowned_backends(self) -> list[Sighting]:
        owned = {instance.pid for instance in self._everybody()}
        sightings = adoption.backends_of(str(self._lock_path))
        return [each for each in sightings if each.pid not in owned]

    def _adopt(self, instance: InstanceController, row: Row, sightings: list[Sighting]) -> None:
        """Find the process of an instance seen for the first time; takes it out of ``sightings``.

        Of several, one that the database knows is kept, or else the oldest.
        """
        marker = Marker(str(self._lock_path), instance_marker(row.id, row.name), launch="")
        own = [each for each in sightings if each.marker.instance == marker.instance]
        process = adoption.find(row.pid, row.pid_started_ticks, own, marker)
        if process is not None:
            sightings[:] = [each for each in sightings if each.pid != process.pid]
            instance.adopt(process)
        else:
            # What was wished before is what had been running, and comes back by and by.
            is_old = self._started_at is not None and row.updated_at < self._started_at
            instance.room.is_boot = is_old and not self._has_adopted

    def _end(self, sighting: Sighting) -> None:
        process = adoption.take(sighting.pid, sighting.started_ticks, sighting.marker)
        if process is not None:
            name = sighting.marker.instance.partition(":")[2]
            orphan = InstanceController(name, None, self._surroundings)
            self._orphans.append(orphan)
            orphan.adopt(process)

    # -- the lock, and the end --------------------------------------------------------------------

    def _wait_for_lock(self) -> int | None:
        """The node's lock; ``None`` if this worker is told to end before it gets it."""
        has_said_so = False
        while not self._is_leaving:
            try:
                return acquire(self._lock_path)
            except Locked as held:
                if not has_said_so:
                    logger.warning("%s; waiting for it", held, extra={"node": self._node})
                has_said_so = True
            self._sleep(self._clock() + LOCK_POLL_SECONDS)
        return None

    def _leave(self, *, quickly: bool) -> None:
        self._is_leaving = True
        for instance in self._everybody():
            if quickly:
                instance.hurry()
            if not self._config.instances.keep_backends:
                instance.leave()
                self._guard(instance, instance.step)

    def _is_done(self) -> bool:
        if not self._is_leaving:
            return False
        if self._config.instances.keep_backends:
            return not any(instance.is_busy for instance in self._everybody())
        return not any(instance.has_process for instance in self._everybody())

    def _close(self, lock: int | None) -> None:
        self._rotation.close()
        self._off_threads.shutdown()
        self._arbiter.write_used(tuple(self._instances.values()))
        self._ledger.close(LEDGER_PATIENCE_SECONDS)
        self._orphan_guard.close(each.identity for each in self._everybody())
        for instance in self._everybody():
            instance.let_go()
        self._bell.close()
        if lock is not None:
            os.close(lock)


_running: Supervisor | None = None


def running_supervisor() -> Supervisor | None:
    """The supervisor of this process; ``None`` in a process that is no node's worker."""
    return _running
