"""The supervisor of a node: the control loop over its instances.

One thread owns every backend process of the node. The thread sleeps until an event comes (an exit,
a wake-up, an answer) or something is due; then it runs the callbacks of the events and steps each
controller. All that could block (health checks, the broker, docker, the database) runs on other
threads, and their results come back as calls on this one: one writer, and no lock.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial

from django.utils import timezone

from instances.supervisor.context import NO_DEADLINE, CheckHealth, OwnerOf, SupervisorContext
from instances.supervisor.controller import health_check
from instances.supervisor.controller.controller import InstanceController
from instances.supervisor.controller.spawn import instance_marker
from instances.supervisor.event_loop import EventLoop
from instances.supervisor.family_monitor import FamilyMonitor
from instances.supervisor.log_rotation import LogRotation
from instances.supervisor.orphans.guard import OrphanGuard, noted_by_last_worker
from instances.supervisor.process import adoption, listeners
from instances.supervisor.process.markers import MarkedProcess, Marker
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import Identity
from instances.supervisor.scheduling.scheduler import Scheduler
from instances.supervisor.scheduling.traffic_monitor import TrafficMonitor
from instances.supervisor.state.rows import Row
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig
from llamactl.core.locks import Locked, acquire
from llamactl.core.parent_heartbeat import ParentHeartbeat
from llamactl.core.repeated_warning import RepeatedWarning
from nodes.models import HEARTBEAT_SECONDS

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Interval between checks whether rows have changed: the longest delay by a lost wake-up."""
RESYNC_SECONDS = 15.0
"""Interval between reads of all rows, in case a change was not counted in the revision."""
LOCK_POLL_SECONDS = 0.2
STORE_CLOSE_SECONDS = 5.0
"""Longest wait of an ending worker for a database that does not answer."""
PAUSE_AFTER_ERROR_SECONDS = 1.0
MAX_FAULTS = 5
"""Consecutive errors in the supervision of one instance, after which the instance fails."""


class Supervisor:
    """The owner of a node's backends. ``start`` and ``stop`` it once; ``wake`` it at any time."""

    def __init__(
        self,
        node: str,
        config: AppConfig,
        *,
        key_for: Callable[[int, str], str],
        clock: Callable[[], float] = time.monotonic,
        check_health: CheckHealth = health_check.check,
        owner_of: OwnerOf = listeners.owner_of,
        heartbeat: ParentHeartbeat | None = None,
    ) -> None:
        """``key_for``: instance id, launch id → API key that llamactl shares with the process."""
        self._node, self._config, self._clock = node, config, clock
        self._heartbeat = heartbeat or ParentHeartbeat(None)
        self._lock_path = config.data_dir.resolve() / f"node-{node}.lock"
        self._events = events = EventLoop(node)
        self._store = StateStore(node, config, events.post, self._take_rows)
        self._traffic = TrafficMonitor(events.off_thread, clock)
        self._scheduler = Scheduler(config, self._store, self._traffic, clock)
        self._scheduler_held_until = 0.0
        self._failed_scheduling = RepeatedWarning(logger, f"scheduling of node {node}")
        self._controllers: dict[int, InstanceController] = {}
        self._orphans: list[InstanceController] = []
        self._noted_before: dict[Identity, frozenset[Identity]] = {}
        self._orphan_guard = OrphanGuard(config, self._lock_path, watch=events.watch, clock=clock)
        self._started_at: datetime | None = None
        self._has_adopted = self._is_ending = self._keeps_backends = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._rotation = LogRotation(config, events.off_thread, clock)
        self._families = FamilyMonitor(events.off_thread, clock)
        self._context = self._context_with(key_for, check_health, owner_of)

    def _context_with(
        self, key_for: Callable[[int, str], str], check_health: CheckHealth, owner_of: OwnerOf
    ) -> SupervisorContext:
        """Return the context of the controllers, with these functions of ``__init__``."""
        is_checked = self._config.instances.check_listener
        return SupervisorContext(
            config=self._config,
            node_marker=str(self._lock_path),
            store=self._store,
            off_thread=self._events.off_thread,
            watch=self._events.watch,
            key_for=key_for,
            clock=self._clock,
            check_health=check_health,
            owner_of=owner_of if is_checked else listeners.unchecked,
            traffic=self._traffic.fresh,
        )

    # -- from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which waits for the node's lock first. Returns at once."""
        global _running
        _running = self
        self._started_at = timezone.now()
        self._thread.start()

    def wake(self) -> None:
        """Refresh the rows now: a desired state has changed."""
        self._events.post(self._store.refresh)

    def stop(self, *, quickly: bool = False, keep_backends: bool = False) -> None:
        """End the supervision; blocks until it has ended.

        Backends run on for the next worker (``keep_backends``, ``instances.keep_backends``), or are
        stopped too. A stop that is under way is finished in any case. ``quickly`` skips drains and
        shortens grace periods to a second.
        """
        global _running
        keeps = keep_backends or self._config.instances.keep_backends
        end = partial(self._end_supervision, quickly=quickly, keeps_backends=keeps)
        self._events.post(end)
        limits = self._config.instances
        timeout = 10.0 if quickly else limits.drain_timeout + 2 * limits.stop_timeout + 10.0
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.error(
                "the supervisor did not end within %g s", timeout, extra={"node": self._node}
            )
        if _running is self:
            _running = None

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        """1. Lock the node. 2. Supervise. 3. Finish the pending writes, and unlock."""
        lock = self._wait_for_lock()
        try:
            if lock is not None:
                self._store.start()
                self._supervise()
        except Exception:
            logger.exception("the supervisor ended by an error", extra={"node": self._node})
        finally:
            self._close(lock)

    def _supervise(self) -> None:
        next_poll = next_beat = next_resync = self._clock()
        while not self._is_done():
            now = self._clock()
            if self._has_adopted:  # with the database away, too: that is no hang
                self._heartbeat.beat()
            if now >= next_beat:
                self._store.heartbeat()
                next_beat = now + HEARTBEAT_SECONDS
            if now >= next_poll:
                self._store.refresh(even_if_unchanged=now >= next_resync)
                next_poll = now + POLL_SECONDS
                next_resync = next_resync if now < next_resync else now + RESYNC_SECONDS
            self._step_all(now)
            self._schedule(now)
            self._rotation.step(now, self._running_names())
            if self._has_adopted:  # before, the guard of the previous worker knows more
                self._families.step(now, self._processes())
                self._orphan_guard.step(now, self._processes())
            if not self._is_done():
                self._sleep(
                    min(
                        next_poll,
                        next_beat,
                        self._rotation.due,
                        self._families.due,
                        self._orphan_guard.due,
                        self._next_due(),
                    )
                )

    def _step_all(self, now: float) -> None:
        for controller in self._all_controllers():
            if now >= controller.held_until:
                self._contain(controller, controller.step)
        self._orphans = [each for each in self._orphans if each.has_process]
        self._controllers = {
            pk: each for pk, each in self._controllers.items() if not each.is_removed
        }

    def _schedule(self, now: float) -> None:
        if self._is_ending or now < self._scheduler_held_until:
            return
        try:
            self._scheduler.schedule(now, tuple(self._controllers.values()))
            self._failed_scheduling.succeeded()
        except Exception:
            self._failed_scheduling.failed("failed", exc_info=True)
            self._scheduler_held_until = self._scheduler.due = now + PAUSE_AFTER_ERROR_SECONDS

    def _contain(self, controller: InstanceController, call: Callable[[], None]) -> None:
        """Contain an error in one instance's supervision."""
        try:
            call()
        except Exception as error:
            logger.exception("supervision failed", extra={"instance": controller.name})
            controller.held_until = self._clock() + PAUSE_AFTER_ERROR_SECONDS
            controller.faults += 1
            if controller.faults >= MAX_FAULTS:
                self._events.call(partial(controller.abandon, error))
        else:
            controller.faults = 0

    def _next_due(self) -> float:
        dues = [max(each.due, each.held_until) for each in self._all_controllers()]
        return min([*dues, NO_DEADLINE if self._is_ending else self._scheduler.due])

    def _sleep(self, until: float) -> None:
        self._events.wait(until - self._clock())

    def _all_controllers(self) -> Iterable[InstanceController]:
        return (*self._controllers.values(), *self._orphans)

    def _processes(self) -> Iterator[Process | None]:
        return (each.process for each in self._all_controllers())

    def _running_names(self) -> Iterator[str]:
        return (each.name for each in self._controllers.values() if each.is_running)

    # -- the rows ---------------------------------------------------------------------------------

    def _take_rows(self, rows: list[Row]) -> None:
        """Update the controllers; the first rows of a worker lead to adoption."""
        if self._is_ending:
            return
        known = {row.id: row for row in rows}
        for pk, controller in self._controllers.items():
            controller.update(known.get(pk))
        unowned = [] if self._has_adopted else self._unowned_backends()
        self._noted_before = {} if self._has_adopted else noted_by_last_worker(self._lock_path)
        for row in rows:
            if row.id not in self._controllers:
                controller = InstanceController(row.name, row, self._context)
                self._controllers[row.id] = controller
                self._contain(controller, partial(self._adopt, controller, row, unowned))
        for orphan in unowned:
            self._end_orphan(orphan)
        self._has_adopted = True

    def _unowned_backends(self) -> list[MarkedProcess]:
        owned = {controller.pid for controller in self._all_controllers()}
        backends = adoption.backends_of(str(self._lock_path))
        return [each for each in backends if each.pid not in owned]

    def _adopt(
        self, controller: InstanceController, row: Row, unowned: list[MarkedProcess]
    ) -> None:
        """Adopt the process of an instance, and take it out of ``unowned``.

        Of several processes the one in the database is kept, or else the oldest.
        """
        instance = instance_marker(row.id, row.name)
        marker = Marker(str(self._lock_path), instance, row.launch_id)
        own = [each for each in unowned if each.marker.instance == marker.instance]
        process = adoption.find_process(row.pid, row.pid_started_ticks, own, marker)
        noted = self._noted_before.get((row.pid or 0, row.pid_started_ticks or 0), frozenset())
        if process is not None:
            process.noted = self._noted_before.get(process.identity, frozenset())
            # A child that leads a session of its own carries the marker of the launch too.
            launch = process.marker.launch or None
            unowned[:] = [
                each for each in unowned if each.pid != process.pid and each.marker.launch != launch
            ]
            controller.adopt(process)
        else:
            controller.clean_up_lost(noted)
            # It ran before the host was restarted, and starts again when it is its turn.
            is_old = self._started_at is not None and row.updated_at < self._started_at
            controller.allocation.is_boot_start = is_old and not self._has_adopted

    def _end_orphan(self, orphan: MarkedProcess) -> None:
        """Adopt and stop the process of an instance that is gone."""
        instance = orphan.marker.instance
        logger.warning("process %d (%s) belongs to no instance: ending it", orphan.pid, instance)
        process = adoption.open_process(orphan.pid, orphan.started_ticks, orphan.marker)
        if process is not None:
            controller = InstanceController(instance.partition(":")[2], None, self._context)
            self._orphans.append(controller)
            controller.adopt(process)

    # -- the lock, and the end --------------------------------------------------------------------

    def _wait_for_lock(self) -> int | None:
        """Acquire the node's lock; ``None`` if this worker ends before."""
        is_logged = False
        while not self._is_ending:
            try:
                return acquire(self._lock_path)
            except Locked as held:
                if not is_logged:
                    logger.warning("%s; waiting for it", held, extra={"node": self._node})
                is_logged = True
            self._sleep(self._clock() + LOCK_POLL_SECONDS)
        return None

    def _end_supervision(self, *, quickly: bool, keeps_backends: bool) -> None:
        self._is_ending = True
        self._keeps_backends = keeps_backends
        for controller in self._all_controllers():
            if quickly:
                controller.end_quickly()
            if not keeps_backends:
                controller.shut_down()
                self._contain(controller, controller.step)

    def _is_done(self) -> bool:
        if not self._is_ending:
            return False
        if self._keeps_backends:
            return not any(controller.is_busy for controller in self._all_controllers())
        return not any(controller.has_process for controller in self._all_controllers())

    def _close(self, lock: int | None) -> None:
        self._rotation.close()
        self._events.end_off_threads()
        self._scheduler.write_used(tuple(self._controllers.values()))
        self._store.close(STORE_CLOSE_SECONDS)
        self._orphan_guard.close(self._processes())
        for controller in self._all_controllers():
            controller.close()
        self._events.close()
        if lock is not None:
            os.close(lock)


_running: Supervisor | None = None


def running_supervisor() -> Supervisor | None:
    """Return the supervisor of this process; ``None`` outside a node's worker."""
    return _running
