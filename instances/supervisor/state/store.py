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
    """Of the instance that it is about."""
    work: Callable[[], Callable[[], None] | None]
    """Does it, and returns what is then to be called on the supervisor's thread."""
    if_refused: Callable[[], None] | None = None
    """What is called there instead where the database will never take it."""


class StateStore:
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

        def work() -> Callable[[], None] | None:
            rows.write(observation)
            return partial(then, rows.revision()) if then is not None else None

        self._add(_Job(observation.name, work))

    def move_port(self, row: Row, host: str, then: Callable[[int | PortUnavailable], None]) -> None:
        """Give the instance another port, free at ``host``; ``then`` gets it, or why not."""
        refusal = PortUnavailable("the database takes no other port; the worker's log says why")
        self._add(
            _Job(
                row.name,
                lambda: partial(then, rows.move_port(row, host, self._config)),
                if_refused=partial(then, refusal),
            )
        )

    def wish_stop(self, row: Row, cause: str, then: Callable[[bool], None]) -> None:
        """Wish a stop, unless something else has been wished since ``row`` was read.

        ``then`` gets whether that is so.
        """
        self._add(
            _Job(
                row.name,
                lambda: partial(then, rows.wish_stop(row, cause)),
                if_refused=partial(then, False),
            )
        )

    def write_queue(self, queue: Mapping[int, Mapping[str, object] | None]) -> None:
        """Instance id → what it waits for; ``None``: for nothing any more."""
        self._add(_Job("the queue", lambda: rows.write_queue(queue)))

    def write_last_used(self, used: Mapping[int, datetime]) -> None:
        """Instance id → when it last was."""
        self._add(_Job("last use", lambda: rows.write_last_used(used)))

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
            write_heartbeat(self._node)
        while self._jobs:
            self._do(self._jobs[0])
            self._jobs.popleft()
        if self._look_wanted:
            self._look_wanted = False
            self._look()

    def _look(self) -> None:
        must_read, self._must_read = self._must_read, False
        revision = rows.revision()
        if revision == self._read_at_revision and not must_read:
            return
        self._read_at_revision = -1  # should this fail, the next look makes up for it
        found = rows.read_rows(self._node)
        self._read_at_revision = revision
        self._post(lambda: self._on_rows(found))

    def _do(self, job: _Job) -> None:
        try:
            then = job.work()
        except (django.db.IntegrityError, django.db.DataError):
            # The database is there and says no, and would next time too.
            then = self._refused(job)
        except django.db.Error:
            raise
        except Exception:
            then = self._refused(job)
        if then is not None:
            self._post(then)

    def _refused(self, job: _Job) -> Callable[[], None] | None:
        logger.exception("an observation can't be written", extra={"instance": job.name})
        return job.if_refused

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
