"""Foreground process group: ordered start, respawn and ordered stop of several processes.

::

    with ProcessGroup(stages, print_line=print) as group:
        group.start()          # stage by stage, each once the stage before is ready
        group.watch()          # respawns exited and hanging processes; ends by raising Stopped

Leaving the ``with`` block stops the stages in the reverse order. The group is single-threaded and
belongs in the main thread: it handles signals, and on Linux the kernel sends its children SIGTERM
when the thread that started them ends (``PR_SET_PDEATHSIG``), so ``kill -9`` leaves no orphan.
"""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Self

from llamactl.core import parent_heartbeat
from llamactl.core.broker_url import BrokerError
from llamactl.core.die_with_parent import end_with_parent
from llamactl.server.child import PROBE_SECONDS, CannotStart, Child, ProcessSpec
from llamactl.server.liveness import INTERVAL_SECONDS, MAX_UNANSWERED, HeartbeatPipe
from llamactl.server.log_file import open_log, read_tail
from llamactl.server.respawn_policy import RespawnPolicy

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNANSWERED = f"no answer for {INTERVAL_SECONDS * MAX_UNANSWERED:.0f} s"
TAIL_LINES = 5
REPEAT_SECONDS = 0.3
"""A signal this soon after another counts as its repetition: wrappers forward a signal that the
terminal has sent to the group already, and a closing terminal sends SIGHUP twice."""


class Stopped(Exception):
    """The group has to stop: a signal arrived, or a process exits again and again."""

    def __init__(self, reason: str, exit_code: int, *, is_requested: bool = False) -> None:
        """``is_requested``: the reason is a signal."""
        super().__init__(reason)
        self.exit_code = exit_code
        self.is_requested = is_requested


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
        self._stages = [[Child(spec) for spec in stage] for stage in stages]
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
        # A process that has replaced another (``foreground``) inherits them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
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
            for child in self._children:
                child.forget()
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
            due = min(child.due for child in self._children)
            due = due if until is None else min(due, until)
            self._sleep(None if due == math.inf else due - time.monotonic())
            if until is not None and time.monotonic() >= until:
                return

    def exit_code(self, reason: Stopped) -> int:
        """Return the exit code after the stop: 0 for a requested stop that killed no process."""
        return 0 if reason.is_requested and not self.killed else reason.exit_code

    @property
    def _children(self) -> list[Child]:
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
            raise Stopped(f"{number.name} received", 128 + number, is_requested=True)
        for child in self._children:
            now = time.monotonic()
            if child.process is None:
                if child.respawn_at is not None and child.respawn_at <= now:
                    self._spawn(child)
            elif (code := child.process.poll()) is not None:
                when = "" if child.is_ready else " before it was ready"
                self._handle_failure(child, f"exited ({_describe(code)}){when}", _exit_code(code))
            elif child.is_ready:
                self._check_liveness(child, now)
            elif child.has_become_ready():
                self._print_line(f"{child.spec.name} ready ({now - child.started:.1f} s)")
            elif now - child.started > child.spec.ready_seconds:
                child.kill()
                self._handle_failure(
                    child, f"was not ready after {child.spec.ready_seconds:.0f} s", 1
                )

    def _check_liveness(self, child: Child, now: float) -> None:
        """End a process that hangs; its exit then leads to a respawn, as any other's."""
        if child.kill_at is None:
            if child.liveness is None or not child.liveness.is_hung(now):
                return
            self._print_line(f"{child.spec.name} hangs ({UNANSWERED}); ending it")
            child.kill_at = now + child.spec.hang_grace_seconds
            if child.spec.hang_grace_seconds > 0:
                child.terminate()
        if now >= child.kill_at:
            child.kill()
            self._handle_failure(child, "was killed, because it hung", 128 + signal.SIGKILL)

    def _spawn(self, child: Child) -> None:
        spec = child.spec
        child.respawn_at = None
        child.started = time.monotonic()
        with ExitStack() as passed_on:
            try:
                descriptors, environment = self._prepare(child, passed_on)
                output = None
                if spec.log_path is not None:
                    output = passed_on.enter_context(open_log(spec.log_path))
                child.process = subprocess.Popen(
                    list(spec.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    # The terminal's Ctrl-C reaches this process alone, which stops the others in
                    # order.
                    start_new_session=True,
                    pass_fds=descriptors,
                    preexec_fn=end_with_parent(),
                )
            except (CannotStart, BrokerError, OSError, subprocess.SubprocessError) as error:
                self._handle_failure(child, f"could not be started: {error}", 1)

    def _prepare(self, child: Child, passed_on: ExitStack) -> tuple[list[int], dict[str, str]]:
        """Return the descriptors and the environment that the process gets.

        ``passed_on`` closes our copies of the descriptors that are made for it.
        """
        spec = child.spec
        descriptors = [*self._inherited, *spec.pass_fds]
        environment = {**os.environ, **spec.environment}
        if spec.prepare is not None:
            descriptors.append(spec.prepare())
            passed_on.callback(os.close, descriptors[-1])
        if spec.sends_heartbeat:
            child.heartbeat = HeartbeatPipe()
            passed_on.callback(child.heartbeat.close_writer)
            descriptors.append(child.heartbeat.writer)
            environment[parent_heartbeat.VARIABLE] = str(child.heartbeat.writer)
        return descriptors, environment

    def _handle_failure(self, child: Child, event: str, exit_code: int) -> None:
        """Schedule a respawn of a failed child, or raise Stopped.

        ``event`` is the rest of a sentence that begins with the child's name.
        """
        name = child.spec.name
        child.forget()
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

    def _await_exit(self, child: Child, began: float) -> None:
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
