"""Resource limits of a backend's process.

There is no ``preexec_fn``, which may deadlock a process with threads, and no wrapper program, which
would hide why a program can't be started. On Linux niceness and CPUs belong to a thread, and a
child inherits them: a short-lived thread with both starts the process. The other limits are set
on the process right after its start; the kernel reads them when they are needed.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from instances.limits import ResourceLimits
from instances.supervisor.process.pidfd import Process


class CannotApplyLimits(Exception):
    """A limit that this host can't apply; the text names the limit and the reason. Nothing runs."""


def spawn_limited(limits: ResourceLimits, start: Callable[[], Process]) -> Process:
    """Run ``start`` under the limits.

    Raises CannotApplyLimits, and the errors of ``start``.
    """
    if not limits.to_document():
        return start()
    starter = _Starter(limits, start)
    starter.start()
    starter.join()
    if starter.error is not None:
        raise starter.error
    process = starter.process
    if process is None:
        raise CannotApplyLimits("the process was not started")
    try:
        _set_limits(process.pid, limits)
    except BaseException:
        process.signal_group(signal.SIGKILL)
        process.reap()
        raise
    return process


class _Starter(threading.Thread):
    """Sets the inherited limits on itself, starts the process, and ends."""

    def __init__(self, limits: ResourceLimits, start: Callable[[], Process]) -> None:
        super().__init__(name="starter")
        self._limits = limits
        self._start = start
        self.process: Process | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._set_inherited_limits()
            self.process = self._start()
        except BaseException as error:
            self.error = error

    def _set_inherited_limits(self) -> None:
        if cpus := self._limits.cpu_set:
            try:
                os.sched_setaffinity(0, cpus)
            except OSError:
                there = sorted(os.sched_getaffinity(0))
                raise CannotApplyLimits(
                    f"limits.cpus is {self._limits.cpus}, and none of these is among the CPUs"
                    f" that the worker may use ({there[0]}-{there[-1]})"
                ) from None
        if self._limits.nice is not None:
            # Never below the worker's own niceness, which takes privileges.
            mine = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, max(mine, self._limits.nice))


def _set_limits(pid: int, limits: ResourceLimits) -> None:
    """Set the limits of a process, if it still runs. Raises CannotApplyLimits."""
    with suppress(ProcessLookupError, FileNotFoundError):
        if limits.core_dumps is not None:
            hard = resource.prlimit(pid, resource.RLIMIT_CORE)[1]
            soft = hard if limits.core_dumps else 0
            resource.prlimit(pid, resource.RLIMIT_CORE, (soft, hard if soft else 0))
        if limits.memory_mb is not None:
            _prlimit(pid, resource.RLIMIT_DATA, limits.memory_mb * 2**20, "memory_mb")
        if limits.open_files is not None:
            _prlimit(pid, resource.RLIMIT_NOFILE, limits.open_files, "open_files")
        if limits.oom_score_adj is not None:
            _write(pid, "oom_score_adj", limits.oom_score_adj)
        if limits.nice is not None:
            # With autogroup each session is a group of its own, and niceness counts within it only.
            with suppress(OSError):
                _write(pid, "autogroup", limits.nice)


def _prlimit(pid: int, kind: int, value: int, name: str) -> None:
    try:
        resource.prlimit(pid, kind, (value, value))
    except (ValueError, PermissionError):
        hard = resource.getrlimit(kind)[1]
        raise CannotApplyLimits(
            f"limits.{name} is above what the worker itself may have ({hard}); lower it, or raise"
            " the limit of the service (LimitNOFILE and the like)"
        ) from None


def _write(pid: int, name: str, value: int) -> None:
    try:
        Path(f"/proc/{pid}/{name}").write_text(str(value))
    except PermissionError:
        raise CannotApplyLimits(
            f"limits.{name} is below the worker's own, which takes privileges"
        ) from None
