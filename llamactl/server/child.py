"""A process of the group: its specification, and the state of the process that runs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llamactl.server.liveness import HeartbeatPipe, Liveness, LivenessProbe

PROBE_SECONDS = 0.05
"""Interval of the readiness probes of a process that is not ready yet."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running."""

    name: str
    argv: Sequence[str]
    grace_seconds: float
    """Grace period between SIGTERM and SIGKILL."""
    is_ready: Callable[[], bool] | None = None
    """Readiness probe; must return quickly. None: the process is ready at its first heartbeat."""
    sends_heartbeat: bool = False
    """Whether the process has a ``ParentHeartbeat``, whose end is a hang."""
    liveness_probe: Callable[[], LivenessProbe] | None = None
    """Makes the liveness probe of a process without a heartbeat; None: a hang goes unnoticed."""
    hang_grace_seconds: float = 5.0
    """Grace period of a process that hangs; 0: SIGKILL without SIGTERM."""
    ready_seconds: float = 60.0
    """Startup timeout."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables added to this process's own environment."""
    log_path: Path | None = None
    """File for the process's output; None: this process's own output."""
    prepare: Callable[[], int] | None = None
    """Called before each start; returns a descriptor for the child, which the group closes after
    the start. Raises CannotStart or OSError."""
    pass_fds: Sequence[int] = ()
    """Descriptors of this process that each start inherits."""
    before_stop: Callable[[], None] | None = None
    """Called once, before the process is stopped for good."""


class CannotStart(Exception):
    """A requirement of the process is missing; the text names it and the remedy."""


class Child:
    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.is_ready = False
        self.was_ready = False
        self.failures: list[float] = []
        """Times of unexpected exits and failed starts (monotonic)."""
        self.respawn_at: float | None = None
        """Time of the next start (monotonic) of a failed process."""
        self.heartbeat: HeartbeatPipe | None = None
        self.liveness: Liveness | None = None
        self.kill_at: float | None = None
        """Time of the SIGKILL (monotonic) to a process that hangs."""
        self._probe: LivenessProbe | None = None

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def has_become_ready(self) -> bool:
        """Whether the process is ready now; begins its liveness probes."""
        if self.spec.is_ready is not None:
            is_ready = self.spec.is_ready()
        else:
            is_ready = self.heartbeat is not None and self.heartbeat.has_answered()
        if is_ready:
            self.is_ready = self.was_ready = True
            if self.spec.liveness_probe is not None:
                self._probe = self.spec.liveness_probe()
            probe = self._probe or self.heartbeat
            self.liveness = Liveness(probe, time.monotonic()) if probe else None
        return is_ready

    def forget(self) -> None:
        """Reset the state of a process that has ended."""
        for probe in (self._probe, self.heartbeat):
            if probe is not None:
                probe.close()
        self.process = self.heartbeat = self.liveness = self.kill_at = self._probe = None
        self.is_ready = False

    @property
    def due(self) -> float:
        """Time of the next thing to do (monotonic), unless a signal comes before."""
        times = [self.respawn_at, self.kill_at]
        if self.liveness is not None and self.kill_at is None:
            times.append(self.liveness.due)
        if self.process is not None and not self.is_ready:
            times.append(time.monotonic() + PROBE_SECONDS)
        return min((each for each in times if each is not None), default=math.inf)

    def terminate(self) -> None:
        """Send SIGTERM to the process alone: it stops its own children itself."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its session's process group, and reap it."""
        # The pid of a reaped process may belong to another process.
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
