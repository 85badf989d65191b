"""Which logs have become too large, and what is kept of them?

The supervisor's thread says every few seconds which backends run; everything else happens on
another one, a log at a time.
"""

from __future__ import annotations

import fcntl
import gzip
import logging
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from instances.logs.files import log_path
from instances.logs.segments import Part, lock, parts_of
from instances.logs.truncate import MIB, cut, finish
from instances.supervisor.context import NEVER, OffThread
from instances.supervisor.process.pidfd import Process
from instances.supervisor.standstill import stopped
from llamactl.config import AppConfig

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
RETRY_SECONDS = 60.0
"""After a failure: a full disk is not emptied by asking it all the time."""
LARGEST_COMPRESSED = 2**32
"""From there on a gzip file does not say its text's length."""


class LogRotation:
    """Looks after the logs of the backends that run on this node."""

    def __init__(
        self, config: AppConfig, off_thread: OffThread, clock: Callable[[], float]
    ) -> None:
        self.due = clock() if config.instances.log_rotation_enabled else NEVER
        """When ``step`` has something to do."""
        self._config = config
        self._off_thread = off_thread
        self._clock = clock
        self._is_closed = threading.Event()
        self._retry_at: dict[str, float] = {}
        """Of the logs whose rotation failed; used by one check at a time."""

    def step(self, now: float, running: Iterable[tuple[str, Process]]) -> None:
        """Have the logs of ``running`` (instance, its process) checked, if it is time."""
        if now < self.due:
            return
        self.due = NEVER
        backends: list[tuple[str, Process]] = []
        try:
            for name, process in running:
                # The supervisor may bury it, and its descriptor be given again, meanwhile.
                backends.append((name, process.duplicate()))
        except OSError as error:  # no descriptor left; those that were had are looked after
            logger.warning("not all logs are looked at: %s", error)
        self._off_thread(partial(self._check, backends), self._has_checked, on_error=None)

    def close(self) -> None:
        """No new rotation; a compression that is under way is given up."""
        self._is_closed.set()

    def _has_checked(self, _: None) -> None:
        self.due = self._clock() + CHECK_SECONDS

    def _check(self, backends: list[tuple[str, Process]]) -> None:
        for name, process in backends:
            try:
                self._check_one(name, process)
            except Exception:
                logger.exception("its log's rotation failed", extra={"instance": name})
                self._retry_at[name] = self._clock() + RETRY_SECONDS
            finally:
                process.close()

    def _check_one(self, name: str, process: Process) -> None:
        if self._is_closed.is_set() or self._clock() < self._retry_at.get(name, 0.0):
            return
        limits = self._config.instances
        path = log_path(self._config, name)
        try:
            finish(path)
            if not _is_larger(path, limits.log_rotation_max_size * MIB):
                return
            part = cut(path, partial(stopped, process))
            if part is not None:
                logger.info("log rotated: %s", part.path.name, extra={"instance": name})
            tidy(
                path,
                backups=limits.log_rotation_backups,
                compress=limits.log_rotation_compress,
                is_given_up=self._is_closed.is_set,
            )
        except OSError as error:
            if name not in self._retry_at:
                logger.warning(
                    "its log can't be rotated, and grows: %s", error, extra={"instance": name}
                )
            self._retry_at[name] = self._clock() + RETRY_SECONDS
        else:
            self._retry_at.pop(name, None)


def tidy(
    path: Path, *, backups: int, compress: bool, is_given_up: Callable[[], bool] = lambda: False
) -> None:
    """Delete all but the newest ``backups`` parts of the log at ``path``; compress them if asked.

    The newest stays as it is: the last lines, which everybody asks for, reach back into it.
    Raises OSError.
    """
    parts = parts_of(path)
    for part in parts[:-backups]:
        _remove(path, part)
    if compress:
        for part in parts[-backups:-1]:
            if not part.is_compressed and not is_given_up():
                _compress(path, part, is_given_up)


def _is_larger(path: Path, limit: int) -> bool:
    try:
        return path.stat().st_size >= limit
    except FileNotFoundError:
        return False


def _compress(path: Path, part: Part, is_given_up: Callable[[], bool]) -> None:
    if part.size() >= LARGEST_COMPRESSED:
        return
    target = part.path.with_name(f"{part.path.name}.gz")
    partial_path = part.path.with_name(f"{part.path.name}.compressing")
    descriptor = os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with (
            part.open() as source,
            os.fdopen(descriptor, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, compresslevel=6) as compressed,
        ):
            while block := source.read(MIB):
                if is_given_up():
                    break
                compressed.write(block)
        if is_given_up():
            partial_path.unlink()
            return
        partial_path.rename(target)
    except BaseException:
        partial_path.unlink(missing_ok=True)
        raise
    _remove(path, part)


def _remove(path: Path, part: Part) -> None:
    """Delete a part; not while somebody looks for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(descriptor, fcntl.LOCK_EX)
        part.path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
