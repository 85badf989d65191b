"""Rotation of the logs of running backends.

The supervisor's thread passes the names of the running backends every few seconds; the files are
read and written on another thread, one log at a time.
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
from instances.logs.segments import Segment, lock, segments_of
from instances.logs.truncate import MIB, recover, rotate
from instances.supervisor.context import NO_DEADLINE, OffThread
from llamactl.config import AppConfig

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
RETRY_SECONDS = 60.0
"""Pause after a failed rotation: a full disk stays full for a while."""
LARGEST_COMPRESSED = 2**32
"""Segments of this size or more stay uncompressed: gzip stores a length modulo 4 GiB."""


class LogRotation:
    """Checks the logs of this node's running backends and rotates the large ones."""

    def __init__(
        self, config: AppConfig, off_thread: OffThread, clock: Callable[[], float]
    ) -> None:
        self.due = clock() if config.instances.log_rotation_enabled else NO_DEADLINE
        """Time of the next check."""
        self._config = config
        self._off_thread = off_thread
        self._clock = clock
        self._is_closed = threading.Event()
        self._retry_at: dict[str, float] = {}
        """Instance → time of the next attempt, after a failed one. Used by one check at a time."""

    def step(self, now: float, running: Iterable[str]) -> None:
        """Check the logs of the ``running`` instances, if a check is due."""
        if now < self.due:
            return
        self.due = NO_DEADLINE
        self._off_thread(partial(self._check, list(running)), self._has_checked, on_error=None)

    def close(self) -> None:
        """Begin no new rotation, and abort a compression that is under way."""
        self._is_closed.set()

    def _has_checked(self, _: None) -> None:
        self.due = self._clock() + CHECK_SECONDS

    def _check(self, names: list[str]) -> None:
        for name in names:
            try:
                self._check_one(name)
            except Exception:
                logger.exception("log rotation failed", extra={"instance": name})
                self._retry_at[name] = self._clock() + RETRY_SECONDS

    def _check_one(self, name: str) -> None:
        if self._is_closed.is_set() or self._clock() < self._retry_at.get(name, 0.0):
            return
        limits = self._config.instances
        path = log_path(self._config, name)
        try:
            recover(path)
            if not _is_larger(path, limits.log_rotation_max_size * MIB):
                return
            segment = rotate(path)
            if segment is not None:
                logger.info("log rotated: %s", segment.path.name, extra={"instance": name})
            prune(
                path,
                backups=limits.log_rotation_backups,
                compress=limits.log_rotation_compress,
                is_aborted=self._is_closed.is_set,
            )
        except OSError as error:
            if name not in self._retry_at:
                logger.warning(
                    "the log can't be rotated, and grows: %s", error, extra={"instance": name}
                )
            self._retry_at[name] = self._clock() + RETRY_SECONDS
        else:
            self._retry_at.pop(name, None)


def prune(
    path: Path, *, backups: int, compress: bool, is_aborted: Callable[[], bool] = lambda: False
) -> None:
    """Delete all but the newest ``backups`` segments of the log at ``path``; compress if asked.

    The newest segment stays uncompressed, because most reads of the last lines reach into it.
    Raises OSError.
    """
    segments = segments_of(path)
    for segment in segments[:-backups]:
        _remove(path, segment)
    if compress:
        for segment in segments[-backups:-1]:
            if not segment.is_compressed and not is_aborted():
                _compress(path, segment, is_aborted)


def _is_larger(path: Path, limit: int) -> bool:
    try:
        return path.stat().st_size >= limit
    except FileNotFoundError:
        return False


def _compress(path: Path, segment: Segment, is_aborted: Callable[[], bool]) -> None:
    if segment.size() >= LARGEST_COMPRESSED:
        return
    target = segment.path.with_name(f"{segment.path.name}.gz")
    partial_path = segment.path.with_name(f"{segment.path.name}.compressing")
    descriptor = os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with (
            segment.open() as source,
            os.fdopen(descriptor, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, compresslevel=6) as compressed,
        ):
            while block := source.read(MIB):
                if is_aborted():
                    break
                compressed.write(block)
        if is_aborted():
            partial_path.unlink()
            return
        partial_path.rename(target)
    except BaseException:
        partial_path.unlink(missing_ok=True)
        raise
    _remove(path, segment)


def _remove(path: Path, segment: Segment) -> None:
    """Delete a segment, while no reader holds the lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(descriptor, fcntl.LOCK_EX)
        segment.path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
