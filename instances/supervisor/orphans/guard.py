"""The supervisor's side of the orphan guard.

The orphan guard is a separate process that ends the node's backends if this worker ends and no
other worker comes back. It is started as soon as there are backends, replaced if it dies, and ended
if there are no backends.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from instances.backends.environment import backend_environment
from instances.installation import installation_id
from instances.supervisor.context import NO_DEADLINE
from instances.supervisor.orphans import program
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import Identity, read_stat
from llamactl.config import AppConfig
from llamactl.core.regular_file import open_regular

logger = logging.getLogger(__name__)

PROGRAM = Path(program.__file__)
RESTART_SECONDS = 5.0
IDLE_SECONDS = 10.0
"""Time for which a guard without backends is kept: a restart of a backend needs no new guard."""
MAX_LOG_BYTES = 1024 * 1024
_NOTED = re.compile(r"(\d+) (\d+) of (\d+) (\d+)")

Orders = frozenset[str]
"""Lines about the backends' processes; ``program.NodeFiles`` describes them."""


class OrphanGuard:
    """The guard of one node. Used on the supervisor's thread, under the node's lock."""

    def __init__(
        self,
        config: AppConfig,
        lock_path: Path,
        *,
        watch: Callable[[Process, Callable[[], None]], None],
        clock: Callable[[], float],
    ) -> None:
        self.due = 0.0
        self._config = config
        self._lock_path = lock_path
        self._orders_path = lock_path.with_suffix(".guard")
        self._log_path = lock_path.with_suffix(".guard.log")
        self._watch = watch
        self._clock = clock
        self._process: Process | None = None
        self._token = ""
        self._written: tuple[str, Orders] | None = None
        self._retry_at = 0.0
        self._idle_since: float | None = None

    def step(self, now: float, backends: Iterable[Process | None]) -> None:
        """Run a guard as long as there are backends, and write their list to its orders.

        The first orders dismiss the guard of the previous worker.
        """
        self.due = NO_DEADLINE
        if now < self._retry_at:
            self.due = self._retry_at
            return
        self._retry_at = 0.0
        guarded = _orders_about(backends)
        try:
            if self._config.instances.orphan_grace == 0:
                pass  # the orders are for the next worker alone
            elif guarded:
                self._idle_since = None
                if self._process is None:
                    self._start(guarded)
            elif self._process is not None:
                self._step_idle(now)
            self._write_orders(guarded)
        except OSError as error:
            logger.warning("the backends have no orphan guard: %s", error)
            self._retry_at = self.due = now + RESTART_SECONDS

    def close(self, backends: Iterable[Process | None]) -> None:
        """End the supervision; the guard stays if there are backends."""
        process, self._process = self._process, None
        if process is None:
            return
        guarded = _orders_about(backends)
        if guarded:
            with suppress(OSError):
                self._write_orders(guarded)
            process.close()
        else:
            # This worker has the node's lock, so the guard only waits and can be killed.
            process.signal_group(signal.SIGKILL)
            process.reap()

    def _step_idle(self, now: float) -> None:
        if self._idle_since is None:
            self._idle_since = now
        self.due = self._idle_since + IDLE_SECONDS
        if now >= self.due:
            self._token = ""
            self.due = NO_DEADLINE

    def _start(self, guarded: Orders) -> None:
        token = uuid.uuid4().hex
        self._token = token
        self._write_orders(guarded)
        limits = self._config.instances
        log = self._open_log()
        try:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(PROGRAM)),
                    *(str(self._lock_path), str(self._orders_path), token),
                    *(f"{limits.orphan_grace:g}", f"{limits.stop_timeout:g}"),
                    *(shutil.which("docker") or "", installation_id()),
                ],
                env=backend_environment({}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                umask=0o077,
                start_new_session=True,
            )
        finally:
            os.close(log)
        pidfd = os.pidfd_open(child.pid)
        child.returncode = 0  # the pidfd is the handle, as in ``pidfd.spawn``
        stat = read_stat(child.pid)
        no_marker = Marker(node="", instance="", launch="")
        self._process = Process(child.pid, stat.started_ticks if stat else 0, pidfd, no_marker)
        self._watch(self._process, self._on_exit)
        logger.info("orphan guard: process %d", child.pid)

    def _on_exit(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        exit_code = process.reap()
        self._idle_since = None
        self.due = 0.0
        if self._token:
            logger.warning("the orphan guard ended (%s); starting another", exit_code)
            # After a pause: a guard that can't start at all must not be started in a loop.
            self._retry_at = self.due = self._clock() + RESTART_SECONDS

    def _write_orders(self, guarded: Orders) -> None:
        """Write changed orders, atomically. Raises OSError."""
        orders = (self._token, guarded)
        if orders == self._written:
            return
        draft = self._orders_path.with_suffix(".guard.new")
        lines = [self._token or "-", *sorted(guarded)]
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(lines) + "\n")
        draft.replace(self._orders_path)
        self._written = orders

    def _open_log(self) -> int:
        with suppress(FileNotFoundError):
            if self._log_path.stat().st_size > MAX_LOG_BYTES:
                self._log_path.replace(self._log_path.with_suffix(".log.1"))
        return open_regular(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _orders_about(backends: Iterable[Process | None]) -> Orders:
    lines = set()
    for process in filter(None, backends):
        leader = f"{process.pid} {process.started_ticks}"
        lines |= {leader, *(f"{pid} {ticks} of {leader}" for pid, ticks in process.noted)}
        if process.control_group is not None:
            lines.add(f"group {process.control_group.path}")
    return frozenset(lines)


def noted_by_last_worker(lock_path: Path) -> dict[Identity, frozenset[Identity]]:
    """Read the processes that the last worker noted, by the leader of their launch."""
    try:
        text = lock_path.with_suffix(".guard").read_text(errors="surrogateescape")
    except OSError:
        return {}
    found: dict[Identity, frozenset[Identity]] = {}
    for line in text.splitlines():
        if match := _NOTED.fullmatch(line):
            pid, ticks, *leader = map(int, match.groups())
            of = (leader[0], leader[1])
            found[of] = found.get(of, frozenset()) | {(pid, ticks)}
    return found
