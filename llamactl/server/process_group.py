"""Foreground process group: ordered start, respawn and ordered stop of several processes.

::

    with ProcessGroup(stages, print_line=print) as group:
        group.start()          # stage by stage, each once the stage before is ready
        group.watch()          # respawns exited processes; ends by raising Stopped

Leaving the ``with`` block stops the stages in the reverse order. The group is single-threaded and
belongs in the main thread: it handles signals, and on Linux the kernel sends its children SIGTERM
when the thread that started them ends (``PR_SET_PDEATHSIG``), so ``kill -9`` leaves no orphan.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from llamactl.core.die_with_parent import end_with_parent
from llamactl.server.log_file import open_log, read_tail
from llamactl.server.respawn_policy import RespawnPolicy

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROBE_SECONDS = 0.05
"""Interval of the readiness probes of a process that is not ready yet."""
TAIL_LINES = 5
REPEAT_SECONDS = 0.3
"""A signal this soon after another counts as its repetition: wrappers forward a signal that the
terminal has sent to the group already, and a closing terminal sends SIGHUP twice."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running."""

    name: str
    argv: Sequence[str]
    is_ready: Callable[[float], bool]
    """Readiness probe, given the unix time of the start; must return quickly."""
    grace_seconds: float
    """Grace period between SIGTERM and SIGKILL."""
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


class Stopped(Exception):
    """The group has to stop: a signal arrived, or a process exits again and again."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class _Child:
    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.started_unix = 0.0
        self.is_ready = False
        self.was_ready = False
        self.failures: list[float] = []
        """Times of unexpected exits and failed starts (monotonic)."""
        self.respawn_at: float | None = None
        """Time of the next start (monotonic) of a failed process."""

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

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


class ProcessGroup:
    """Processes that are started, respawned and stopped together; see the module.

    ``print_line`` takes lines for the operator. ``inherited`` are descriptors that every child
    holds open, such as a lock that shows whether processes of this group still run.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[ProcessSpec]],
        *,
        print_line: Callable[[str], None],
        respawn_policy: RespawnPolicy | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self._stages = [[_Child(spec) for spec in stage] for stage in stages]
        self._print_line = print_line
        self._respawn_policy = respawn_policy or RespawnPolicy()
        self._inherited = tuple(inherited)
        self._signals: list[signal.Signals] = []
        self._signalled_at = -REPEAT_SECONDS
        self._answered_signals = 0
        self.killed: list[str] = []
        """Names of the processes that were killed at or before the end of their grace period."""

    # -- lifecycle -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._old_handlers = {signal.SIGCHLD: signal.signal(signal.SIGCHLD, _ignore)}
        for number in STOP_SIGNALS:
            # nohup sets SIGHUP to be ignored, and that is respected. A shell's "&" sets SIGINT to
            # be ignored too, but operators still stop a background job with it, so it is handled.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._old_handlers[number] = signal.signal(number, self._record_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stop()
        finally:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._old_wakeup)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def start(self) -> None:
        """Start stage after stage; returns once the last stage is ready. Raises Stopped."""
        for stage in self._stages:
            for child in stage:
                self._spawn(child)
            while not all(child.was_ready for child in stage):
                self._poll()
                self._sleep(PROBE_SECONDS)

    def watch(self, seconds: float | None = None) -> None:
        """Keep all processes running for ``seconds`` (None: without end). Raises Stopped."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            self._poll()
            wake_times = [
                child.respawn_at for child in self._children if child.respawn_at is not None
            ]
            if any(child.process is not None and not child.is_ready for child in self._children):
                wake_times.append(time.monotonic() + PROBE_SECONDS)
            if until is not None:
                wake_times.append(until)
            self._sleep(min(wake_times) - time.monotonic() if wake_times else None)
            if until is not None and time.monotonic() >= until:
                return

    @property
    def _children(self) -> list[_Child]:
        return [child for stage in self._stages for child in stage]

    # -- signals ---------------------------------------------------------------------------------

    def _record_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._signalled_at >= REPEAT_SECONDS:
            self._signals.append(signal.Signals(number))
        self._signalled_at = now

    def _sleep(self, seconds: float | None) -> None:
        """Sleep until a signal arrives (a child's exit sends SIGCHLD) or the time is over."""
        select.select([self._wake_read], [], [], None if seconds is None else max(seconds, 0.0))
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    # -- respawn ---------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Handle signals, exits, readiness and due respawns, once."""
        if self._signals:
            number = self._signals[0]
            self._answered_signals = 1
            raise Stopped(f"{number.name} received", 128 + number)
        for child in self._children:
            now = time.monotonic()
            if child.process is None:
                if child.respawn_at is not None and child.respawn_at <= now:
                    self._spawn(child)
            elif (code := child.process.poll()) is not None:
                when = "" if child.is_ready else " before it was ready"
                self._handle_failure(child, f"exited ({_describe(code)}){when}", _exit_code(code))
            elif child.is_ready:
                continue
            elif child.spec.is_ready(child.started_unix):
                child.is_ready = child.was_ready = True
                self._print_line(f"{child.spec.name} ready ({now - child.started:.1f} s)")
            elif now - child.started > child.spec.ready_seconds:
                child.kill()
                self._handle_failure(
                    child, f"was not ready after {child.spec.ready_seconds:.0f} s", 1
                )

    def _spawn(self, child: _Child) -> None:
        spec = child.spec
        child.respawn_at = None
        child.is_ready = False
        child.started = time.monotonic()
        child.started_unix = time.time()
        with ExitStack() as passed_on:
            descriptors = [*self._inherited, *spec.pass_fds]
            output = None
            try:
                if spec.prepare is not None:
                    descriptors.append(spec.prepare())
                    passed_on.callback(os.close, descriptors[-1])
                if spec.log_path is not None:
                    output = passed_on.enter_context(open_log(spec.log_path))
                child.process = subprocess.Popen(
                    list(spec.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **spec.environment},
                    # The terminal's Ctrl-C reaches this process alone, which stops the others in
                    # order.
                    start_new_session=True,
                    pass_fds=descriptors,
                    preexec_fn=end_with_parent(),
                )
            except (CannotStart, OSError, subprocess.SubprocessError) as error:
                self._handle_failure(child, f"could not be started: {error}", 1)

    def _handle_failure(self, child: _Child, event: str, exit_code: int) -> None:
        """Schedule a respawn of a failed child, or raise Stopped.

        ``event`` is the rest of a sentence that begins with the child's name.
        """
        name = child.spec.name
        child.process = None
        child.is_ready = False
        now = time.monotonic()
        child.failures.append(now)
        tail = "" if child.spec.log_path is None else read_tail(child.spec.log_path, TAIL_LINES)
        where = f"; the end of {child.spec.log_path}:\n{tail}" if tail else ""
        if not child.was_ready:
            raise Stopped(f"{name} {event}{where}", exit_code)
        delay = self._respawn_policy.delay_after(child.failures, now)
        if delay is None:
            failures = f"{self._respawn_policy.max_failures} failures"
            raise Stopped(
                f"{name} {event}; not starting it again after {failures}{where}", exit_code
            )
        child.respawn_at = now + delay
        self._print_line(f"{name} {event}; starting it again in {delay:g} s{where}")

    # -- stopping --------------------------------------------------------------------------------

    def _stop(self) -> None:
        for stage in reversed(self._stages):
            began = time.monotonic()
            living = [child for child in stage if child.is_alive]
            for child in stage:
                if child.spec.before_stop is not None:
                    child.spec.before_stop()
            for child in living:
                child.terminate()
            for child in living:
                self._await_exit(child, began)

    def _await_exit(self, child: _Child, began: float) -> None:
        while child.is_alive:
            left = began + child.spec.grace_seconds - time.monotonic()
            if left <= 0 or len(self._signals) > self._answered_signals:
                self.killed.append(child.spec.name)
                child.kill()
                break
            self._sleep(left)
        how = "killed" if child.spec.name in self.killed else "stopped"
        self._print_line(f"{child.spec.name} {how} ({time.monotonic() - began:.1f} s)")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle SIGCHLD: Python writes to the wake-up descriptor only if there is a handler."""


def _exit_code(returncode: int) -> int:
    """Convert to a shell's exit code: 128 + n for signal n, 1 for an unrequested exit with 0."""
    return 128 - returncode if returncode < 0 else returncode or 1


def _describe(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"signal {-returncode}"
