"""How are a few processes kept running in the foreground, in order, until someone says stop?

::

    with ProcessGroup(stages, say=print) as group:
        group.start()          # stage by stage, each once the one before is ready
        group.watch()          # restarts what dies; leaves by raising Stopped

Leaving the ``with`` block stops the stages in the reverse order. The group is single-threaded and
belongs in the main thread: it handles signals, and on Linux its children are told to end when the
thread that started them does (``PR_SET_PDEATHSIG``), so that not even ``kill -9`` leaves one.
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
from llamactl.server.embedded_broker import open_log, read_tail
from llamactl.server.respawn_policy import RespawnPolicy

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROBE_SECONDS = 0.05
"""Between two looks at a process that is not ready yet."""
TAIL_LINES = 5
REPEAT_SECONDS = 0.3
"""A signal that follows another so closely is the same wish: wrappers pass on what the terminal
has sent already, and a closing terminal says SIGHUP twice."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running."""

    name: str
    argv: Sequence[str]
    is_ready: Callable[[float], bool]
    """Whether the process that was started at the given unix time works by now; quick."""
    grace_seconds: float
    """Between SIGTERM and SIGKILL."""
    ready_seconds: float = 60.0
    """How long a start may take before it counts as failed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to our own environment."""
    log_path: Path | None = None
    """Where its output goes; None: where ours goes."""
    prepare: Callable[[], int] | None = None
    """Called before each start; returns a descriptor for the child, which is closed here. Raises
    CannotStart or OSError."""
    pass_fds: Sequence[int] = ()
    """Descriptors of ours that each start inherits."""
    retire: Callable[[], None] | None = None
    """Called once before it is stopped for good."""


class CannotStart(Exception):
    """What a process needs is missing; the text says what, and what to do."""


class Stopped(Exception):
    """The group is to end: a signal came, or a process can't be kept running."""

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
        self.deaths: list[float] = []
        self.due: float | None = None
        """When to start it again (monotonic), where it is dead."""

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def terminate(self) -> None:
        """Ask the process alone: how its own children end is its business."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever shares its session, and wait for its end."""
        # Once it has been reaped, the number may belong to somebody else.
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class ProcessGroup:
    """Starts, watches and stops processes; see the module. ``say`` takes lines for the operator.

    ``inherited`` are descriptors that every child holds open, such as a lock that says that
    processes of this group are still about.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[ProcessSpec]],
        *,
        say: Callable[[str], None],
        restarts: RespawnPolicy | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self._stages = [[_Child(spec) for spec in stage] for stage in stages]
        self._say = say
        self._restarts = restarts or RespawnPolicy()
        self._inherited = tuple(inherited)
        self._signals: list[signal.Signals] = []
        self._signalled = -REPEAT_SECONDS
        self._answered_signals = 0
        self.killed: list[str] = []
        """Names of the processes that did not end within their grace, or had none."""

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._old_handlers = {signal.SIGCHLD: signal.signal(signal.SIGCHLD, _ignore)}
        for number in STOP_SIGNALS:
            # nohup, and a shell's "&", have asked for some to be ignored; a shell's "&" does so
            # with SIGINT even where someone wants to stop us by it, so that one is heard.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._old_handlers[number] = signal.signal(number, self._note)
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
        """Start stage after stage; returns when the last is ready. Raises Stopped."""
        for stage in self._stages:
            for child in stage:
                self._spawn(child)
            while not all(child.was_ready for child in stage):
                self._step()
                self._sleep(PROBE_SECONDS)

    def watch(self, seconds: float | None = None) -> None:
        """Keep everything running for so long (None: for ever). Raises Stopped."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            self._step()
            wakes = [child.due for child in self._children if child.due is not None]
            if any(child.process is not None and not child.is_ready for child in self._children):
                wakes.append(time.monotonic() + PROBE_SECONDS)
            if until is not None:
                wakes.append(until)
            self._sleep(min(wakes) - time.monotonic() if wakes else None)
            if until is not None and time.monotonic() >= until:
                return

    @property
    def _children(self) -> list[_Child]:
        return [child for stage in self._stages for child in stage]

    # -- signals ---------------------------------------------------------------------------------

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._signalled >= REPEAT_SECONDS:
            self._signals.append(signal.Signals(number))
        self._signalled = now

    def _sleep(self, seconds: float | None) -> None:
        """Until a signal comes (a child's end is one), or the time is over."""
        select.select([self._wake_read], [], [], None if seconds is None else max(seconds, 0.0))
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    # -- keeping it running ----------------------------------------------------------------------

    def _step(self) -> None:
        """Look at everything once: signals, ends, readiness, restarts that are due."""
        if self._signals:
            number = self._signals[0]
            self._answered_signals = 1
            raise Stopped(f"{number.name} received", 128 + number)
        for child in self._children:
            now = time.monotonic()
            if child.process is None:
                if child.due is not None and child.due <= now:
                    self._spawn(child)
            elif (code := child.process.poll()) is not None:
                when = "" if child.is_ready else " before it was ready"
                self._bury(child, f"ended ({_describe(code)}){when}", _exit_code(code))
            elif child.is_ready:
                continue
            elif child.spec.is_ready(child.started_unix):
                child.is_ready = child.was_ready = True
                self._say(f"{child.spec.name} ready ({now - child.started:.1f} s)")
            elif now - child.started > child.spec.ready_seconds:
                child.kill()
                self._bury(child, f"was not ready after {child.spec.ready_seconds:.0f} s", 1)

    def _spawn(self, child: _Child) -> None:
        spec = child.spec
        child.due = None
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
                    # The terminal's Ctrl-C is for us alone: we stop the rest in order.
                    start_new_session=True,
                    pass_fds=descriptors,
                    preexec_fn=end_with_parent(),
                )
            except (CannotStart, OSError, subprocess.SubprocessError) as error:
                self._bury(child, f"could not be started: {error}", 1)

    def _bury(self, child: _Child, what: str, exit_code: int) -> None:
        """Decide what follows from a death: a restart, or the end of everything."""
        name = child.spec.name
        child.process = None
        child.is_ready = False
        now = time.monotonic()
        child.deaths.append(now)
        tail = "" if child.spec.log_path is None else read_tail(child.spec.log_path, TAIL_LINES)
        where = f"; the end of {child.spec.log_path}:\n{tail}" if tail else ""
        if not child.was_ready:
            raise Stopped(f"{name} {what}{where}", exit_code)
        delay = self._restarts.delay_after(child.deaths, now)
        if delay is None:
            deaths = f"{self._restarts.most_deaths} deaths"
            raise Stopped(f"{name} {what}; giving up after {deaths}{where}", exit_code)
        child.due = now + delay
        self._say(f"{name} {what}; starting it again in {delay:g} s{where}")

    # -- stopping --------------------------------------------------------------------------------

    def _stop(self) -> None:
        for stage in reversed(self._stages):
            began = time.monotonic()
            living = [child for child in stage if child.is_alive]
            for child in stage:
                if child.spec.retire is not None:
                    child.spec.retire()
            for child in living:
                child.terminate()
            for child in living:
                self._await_end(child, began)

    def _await_end(self, child: _Child, began: float) -> None:
        while child.is_alive:
            left = began + child.spec.grace_seconds - time.monotonic()
            if left <= 0 or len(self._signals) > self._answered_signals:
                self.killed.append(child.spec.name)
                child.kill()
                break
            self._sleep(left)
        how = "killed" if child.spec.name in self.killed else "stopped"
        self._say(f"{child.spec.name} {how} ({time.monotonic() - began:.1f} s)")


def _ignore(number: int, frame: FrameType | None) -> None:
    """SIGCHLD needs a handler for the wake-up descriptor to be written; nothing else."""


def _exit_code(returncode: int) -> int:
    """As a shell says it: 128 + n for signal n. An end with 0 was not asked for, hence 1."""
    return 128 - returncode if returncode < 0 else returncode or 1


def _describe(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"signal {-returncode}"
