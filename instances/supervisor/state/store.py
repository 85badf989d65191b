"""Queue of the supervisor's reads and writes of the database.

All database access of the supervisor goes through this queue, in order, on a thread of its own. So
a database that is slow, locked or away delays the writes and nothing else: observations stay in
the queue until they are written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import django.db
from django.db import close_old_connections, connections

from instances.errors import PortUnavailable
from instances.supervisor.state import rows
from instances.supervisor.state.rows import Observation, Row
from llamactl.config import AppConfig
from nodes.heartbeat import write_heartbeat

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class _Job:
    name: str
    """Name of the instance."""
    work: Callable[[], Callable[[], None] | None]
    """Accesses the database, and returns a callback for the supervisor's thread."""
    if_refused: Callable[[], None] | None = None
    """Callback instead, if the database refuses the write for good."""


class StateStore:
    """A queue of database jobs, and the thread that runs them."""

    def __init__(
        self,
        node: str,
        config: AppConfig,
        post: Callable[[Callable[[], None]], None],
        on_rows: Callable[[list[Row]], None],
    ) -> None:
        """``post`` runs a call on the supervisor's thread; ``on_rows`` gets refreshed rows."""
        self._node = node
        self._config = config
        self._post = post
        self._on_rows = on_rows
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._refresh_requested = False
        self._must_read = False
        self._read_at_revision = -1
        self._heartbeat_requested = False
        self._closing = threading.Event()
        self._close_by = 0.0
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="state-store", daemon=True)

    # -- called on the supervisor's thread; only ``close`` blocks ---------------------------------

    def start(self) -> None:
        self._thread.start()

    def write(self, observation: Observation, then: Callable[[int], None] | None = None) -> None:
        """Write an observation; ``then`` gets the revision of the instances that includes it."""

        def work() -> Callable[[], None] | None:
            rows.write(observation)
            return partial(then, rows.revision()) if then is not None else None

        self._add(_Job(observation.name, work))

    def move_port(self, row: Row, host: str, then: Callable[[int | PortUnavailable], None]) -> None:
        """Give the instance another port, free at ``host``; ``then`` gets the port or the error."""
        refusal = PortUnavailable("no other port could be saved; the worker's log has the reason")
        self._add(
            _Job(
                row.name,
                lambda: partial(then, rows.move_port(row, host, self._config)),
                if_refused=partial(then, refusal),
            )
        )

    def request_stop(self, row: Row, cause: str, then: Callable[[bool], None]) -> None:
        """Request a stop, unless the desired state has changed since ``row`` was read.

        ``then`` gets whether the stop is requested.
        """
        self._add(
            _Job(
                row.name,
                lambda: partial(then, rows.request_stop(row, cause)),
                if_refused=partial(then, False),
            )
        )

    def write_queue(self, queue: Mapping[int, Mapping[str, object] | None]) -> None:
        """Write instance id → place in the queue; ``None`` for an instance that waits no more."""
        self._add(_Job("the queue", lambda: rows.write_queue(queue)))

    def write_last_used(self, used: Mapping[int, datetime]) -> None:
        """Write instance id → time of the last use."""
        self._add(_Job("last use", lambda: rows.write_last_used(used)))

    def refresh(self, *, even_if_unchanged: bool = True) -> None:
        """Read the rows of the node, after all pending writes.

        The revision is read first: it counts the changes of the rows, and is cheaper to read.
        """
        with self._changed:
            self._refresh_requested = True
            self._must_read |= even_if_unchanged
            self._changed.notify()

    def heartbeat(self) -> None:
        """Write the node's heartbeat."""
        with self._changed:
            self._heartbeat_requested = True
            self._changed.notify()

    def close(self, timeout_seconds: float) -> None:
        """Finish the pending writes, for at most ``timeout_seconds``. Blocks."""
        with self._changed:
            self._close_by = time.monotonic() + timeout_seconds
            self._closing.set()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds + 1.0)
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
                    logger.exception("unexpected error in the state store")
                    self._back_off(error)
                else:
                    self._reset_failures()
        finally:
            connections.close_all()

    def _is_done(self) -> bool:
        with self._changed:
            while not self._closing.is_set():
                if self._jobs or self._refresh_requested or self._heartbeat_requested:
                    return False
                self._changed.wait()
            return not self._jobs or time.monotonic() >= self._close_by

    def _work(self) -> None:
        """Run the pending jobs, then refresh the rows if requested.

        Raises django.db.Error.
        """
        close_old_connections()
        if self._heartbeat_requested:
            self._heartbeat_requested = False
            write_heartbeat(self._node)
        while self._jobs:
            self._do(self._jobs[0])
            self._jobs.popleft()
        if self._refresh_requested:
            self._refresh_requested = False
            self._refresh()

    def _refresh(self) -> None:
        must_read, self._must_read = self._must_read, False
        revision = rows.revision()
        if revision == self._read_at_revision and not must_read:
            return
        self._read_at_revision = -1  # if this refresh fails, the next one reads the rows
        found = rows.read_rows(self._node)
        self._read_at_revision = revision
        self._post(lambda: self._on_rows(found))

    def _do(self, job: _Job) -> None:
        try:
            then = job.work()
        except (django.db.IntegrityError, django.db.DataError):
            # The database refuses the write, and would refuse it again.
            then = self._refused(job)
        except django.db.Error:
            raise
        except Exception:
            then = self._refused(job)
        if then is not None:
            self._post(then)

    def _refused(self, job: _Job) -> Callable[[], None] | None:
        logger.exception("a write was refused for good", extra={"instance": job.name})
        return job.if_refused

    def _back_off(self, error: Exception) -> None:
        if self._failures == 0:
            logger.warning("the database does not answer, supervising from memory: %s", error)
        # The connection is in an unknown state; the next attempt opens another one.
        connections["default"].close()
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_PAUSE_SECONDS)
        self._failures += 1
        if not self._closing.wait(pause):
            return
        # The last attempts, until the timeout of ``close``.
        time.sleep(FIRST_PAUSE_SECONDS)

    def _reset_failures(self) -> None:
        if self._failures:
            logger.info("the database answers again")
            self._failures = 0
