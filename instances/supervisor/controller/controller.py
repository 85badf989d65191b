"""What is the next step towards an instance's wish, given what is known of it?

One object an instance, used on the supervisor's thread alone. Whatever is awaited (a probe, a
signal's effect, a restart's delay, the database) is a time or an answer that ``step`` looks at;
nothing in here blocks.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import replace

from django.utils import timezone

from instances.backends.failure_signs import FailureReason
from instances.desired_state import is_by_operator, is_by_supervisor
from instances.states import DesiredState, Status
from instances.supervisor.context import NEVER, SupervisorContext
from instances.supervisor.controller import spawn
from instances.supervisor.controller.allocation import Allocation
from instances.supervisor.controller.drain import RemainingTraffic
from instances.supervisor.controller.liveness_probe import LivenessProbe, liveness_probe_for
from instances.supervisor.controller.restart_policy import Crash, restart_delay, stable_seconds
from instances.supervisor.controller.spawn import LaunchFailed
from instances.supervisor.controller.start import Start
from instances.supervisor.controller.startup_probe import StartupProbe
from instances.supervisor.controller.stop import (
    QUICK_SECONDS,
    WORKER_ENDS,
    Drain,
    StopSequence,
    cause_of_stop,
)
from instances.supervisor.failure import Failure, exit_failure, exit_text, fault, useless
from instances.supervisor.process.adoption import end_stragglers
from instances.supervisor.process.containers import remove_container, stop_container
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.observed import ObservedState
from instances.supervisor.state.rows import Row

logger = logging.getLogger(__name__)


class InstanceController:
    """One instance: its wish, what has been seen of it, and its process if it has one.

    At most one of these is under way: a start (``Start``, without a process yet), becoming ready
    (``StartupProbe``), staying so (``LivenessProbe``), a stop (``StopSequence``).
    """

    def __init__(self, name: str, row: Row | None, surroundings: SupervisorContext) -> None:
        """``row`` is ``None`` for a process that was found and whose instance is gone."""
        self.name = name
        self.due = 0.0
        """When ``step`` has something to do even if nothing happens before."""
        self.held_until = 0.0
        """Before that it isn't stepped, after a mistake in its supervision."""
        self.faults = 0
        """Mistakes in its supervision, in a row."""
        self._mistake: Failure | None = None
        self.room = Allocation(row, surroundings.clock())
        self._row = row
        self._world = surroundings
        self._limits = surroundings.config.instances
        self._seen = ObservedState(name, row, surroundings.ledger)
        self._process: Process | None = None
        self._start: Start | None = None
        self._readiness: StartupProbe | None = None
        self._vigil: LivenessProbe | None = None
        self._stop: StopSequence | None = None
        self._given_up: FailureReason | None = None
        """Why the process is ended though it is wished: it took too long, or hangs."""
        self._why_it_gives_way = ""
        self._stopped_by = ("", "")
        self._restart_at = 0.0
        self._up_since = 0.0
        self._docker_calls = 0
        self._is_leaving = False
        self._is_hurried = False

    # -- what the loop tells it, and asks ---------------------------------------------------------

    def see(self, row: Row | None) -> None:
        """The row as it is now; ``None``: it is gone."""
        self._row = row
        if row is None:
            return
        now = self._world.clock()
        self.room.see(row, now)
        stopped = row.desired_state is DesiredState.STOPPED and is_by_operator(row.requested_by)
        if self._stop is not None and stopped:
            # It was only ending for somebody else; now it is to end.
            self._stop.limit_drain(now + self._limits.drain_timeout)

    def grant(self) -> None:
        """It has the room that it wanted."""
        self.room.grant()
        self.due = 0.0

    def give_way(self, cause: str, reason: str) -> None:
        """The wish is now that it stops: for idleness, or so that others have room."""
        self.room.is_asked_to_leave = False
        if self._row is None:
            return
        self._row = replace(self._row, desired_state=DesiredState.STOPPED, requested_by=cause)
        self._why_it_gives_way = reason
        self.due = 0.0
        # Now, because a request may have wished it back by the next look at the rows, and would
        # turn this into a restart.
        if self._process is not None and self._stop is None:
            self._begin_stop(self._world.clock())

    def leave(self) -> None:
        """End the process, because the worker ends; the wish stays for the next worker."""
        self._is_leaving = True
        if self._stop is not None:
            self._stop.limit_drain(self._world.clock() + self._limits.drain_timeout)

    def hurry(self) -> None:
        """The worker has to end at once: no drain, and little patience."""
        self._is_hurried = True
        if self._stop is not None:
            self._stop.hurry(self._world.clock())

    def give_up(self, error: Exception) -> None:
        """Its supervision raises again and again: it fails, until somebody wishes it anew.

        A process is killed, for nobody watches over it any more.
        """
        self._start = self._stop = None
        self._stop_probing()
        row = self._wanted_row()
        settled = (Status.FAILED, Status.STOPPED)
        if self._process is not None:
            self._mistake = fault(error)
            self._process.signal_group(signal.SIGKILL)
        elif row is not None and (self._is_unseen(row) or self._seen.status not in settled):
            self._seen.given_up(row, fault(error))

    def let_go(self) -> None:
        """The end of this supervision; a process that is left lives on."""
        if self._process is not None:
            self._process.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether there is a process, and it is not being stopped."""
        return self._process is not None and self._stop is None

    @property
    def identity(self) -> tuple[int, int] | None:
        """Its process's pid and start time."""
        return (self._process.pid, self._process.started_ticks) if self._process else None

    @property
    def row(self) -> Row | None:
        return self._row

    @property
    def is_ready(self) -> bool:
        """Whether it has been ready, and nothing has happened to it since."""
        is_at_rest = self._stop is None and self._readiness is None
        return is_at_rest and self._seen.status is Status.RUNNING

    @property
    def is_ending(self) -> bool:
        """Whether its room is about to be free."""
        return not self.room.is_granted or self.room.is_asked_to_leave

    @property
    def is_doubtful(self) -> bool:
        """Whether it may hang."""
        return self._vigil is not None and self._vigil.is_doubtful

    @property
    def is_busy(self) -> bool:
        """Whether something is under way that should not be left to the next worker.

        Waiting for requests of an instance that nobody but the supervisor wants to stop can be.
        """
        is_stopping = self._stop is not None and not self._stop.is_patient
        return is_stopping or self._docker_calls > 0

    @property
    def has_process(self) -> bool:
        """Whether there is a process, or about to be."""
        return self._process is not None or self._start is not None or self._docker_calls > 0

    @property
    def is_forgotten(self) -> bool:
        return self._row is None and not self.has_process

    # -- first sight ------------------------------------------------------------------------------

    def adopt(self, process: Process) -> None:
        """Take over a process that an earlier worker started."""
        now = self._world.clock()
        self._process = process
        self.room.grant()
        self._world.watch(process, self._on_exit)
        # An earlier llamactl stopped a backend (SIGSTOP) while it rotated the log. A worker of that
        # release that was killed in this moment has left the backend stopped.
        process.signal_group(signal.SIGCONT)
        logger.info("adopted process %d", process.pid, extra={"instance": self.name})
        if self._row is None or self._seen.status is Status.SHUTTING_DOWN:
            self._begin_stop(now)
            return
        self._seen.adopted(self._row, process, then=self.room.take_ready)
        self._up_since = self.room.ready_since = now
        if self._row.ready_at is not None:
            self.room.ready_since -= max(0.0, (timezone.now() - self._row.ready_at).total_seconds())
        must_get_ready = self._seen.status is Status.STARTING
        self._expect_ready(self._row, now, must_be_in_time=must_get_ready)

    # -- the next step ----------------------------------------------------------------------------

    def step(self) -> None:
        """Do what is due, and set ``due``.

        1. Without a process: start one if it is wished and time; settle at ``stopped`` if not.
        2. With one that is on its way out: the next signal, when the last was not heeded.
        3. With one that is not wished (any more, or not this one): begin to stop it.
        4. With one that is starting: probe it, until it is ready or has taken too long.
        5. With one that is ready: see that it does not hang, and give it its restarts back once it
           has been up for long.
        """
        now = self._world.clock()
        self.due = NEVER
        if self._process is None:
            self._step_without_process(now)
        elif self._stop is not None:
            self._stop.step(now)
            self.due = self._stop.due
        elif self._must_end():
            self._begin_stop(now)
        elif self._readiness is not None:
            self._step_readiness(self._readiness, now)
        elif self._row is not None:
            self._step_up(self._row, now)

    def _wanted_row(self) -> Row | None:
        """The row, if it asks for a process."""
        if self._is_leaving or self._row is None:
            return None
        return self._row if self._row.desired_state is DesiredState.RUNNING else None

    def _must_end(self) -> bool:
        """Whether a process, if there is one, is not what is wished: none is, or a new one."""
        row = self._wanted_row()
        return row is None or self._is_unseen(row)

    def _is_unseen(self, row: Row) -> bool:
        return row.generation > self._seen.observed_generation

    # -- starting ---------------------------------------------------------------------------------

    def _step_without_process(self, now: float) -> None:
        if self._docker_calls > 0:
            return  # the next container may have the same name, and must not meet them
        self.room.is_wanted = False
        row = self._wanted_row()
        if row is None:
            self.room.is_granted = False
            self._settle()
        elif self._is_unseen(row):
            self._start_with_room(row, now)
        elif self._start is not None:
            self._step_start(self._start, now)
        elif self._seen.status is Status.RESTARTING:
            self.due = self._restart_at
            if now >= self.due:
                self._start_with_room(row, now)
        elif self._seen.status not in (Status.FAILED, Status.STOPPED):
            self._seen.gone(row)
            self.due = now
        else:
            # That was the outcome of this wish, and only a new one helps.
            self.room.is_granted = False

    def _start_with_room(self, row: Row, now: float) -> None:
        if self.room.is_granted:
            self._begin_start(row, now)
        else:
            self.room.is_wanted = True
            self.due = NEVER  # until it is granted

    def _settle(self) -> None:
        """There is no process and none is wished: cancel what was planned, and say so."""
        self._start = None
        row = self._row
        if row is None:
            return
        if row.desired_state is DesiredState.STOPPED:
            # A start that was taken back leaves what the last one came to.
            kept = self._seen.status is Status.FAILED and is_by_supervisor(row.requested_by)
            if self._seen.status is not Status.STOPPED and not kept:
                self._seen.stopped(row, *self._stop_cause(), is_outcome=False)
        elif self._seen.status not in (Status.STOPPED, Status.FAILED):
            self._seen.stopped(row, *WORKER_ENDS, is_outcome=False)

    def _begin_start(self, row: Row, now: float) -> None:
        """Record the intent; the start goes on once that is written."""
        start = self._start = Start(row, self._world, now)
        self.due = start.due
        self._seen.starting(row, then=start.go_on)

    def _step_start(self, start: Start, now: float) -> None:
        try:
            process = start.step(now)
        except LaunchFailed as failed:
            self._start = None
            self._crashed(start.row, failed.failure)
            return
        self.due = start.due
        if process is None:
            return
        self._start = None
        self._process = process
        self._world.watch(process, self._on_exit)
        self._seen.started(start.row, process)
        self._expect_ready(start.row, now, must_be_in_time=True)

    # -- becoming ready, staying up ---------------------------------------------------------------

    def _expect_ready(self, row: Row, now: float, *, must_be_in_time: bool) -> None:
        limit = self._limits.start_timeout if must_be_in_time else NEVER
        try:
            endpoint = spawn.endpoint(row, self._world.key_for(row.id))
        except LaunchFailed as failed:
            # An adopted one, whose options have become unreadable: it runs on.
            logger.warning("not probed: %s", failed, extra={"instance": self.name})
            return
        self._readiness = StartupProbe(
            endpoint, self._world, now=now, timeout_seconds=limit, on_ready=self._on_ready
        )
        self.due = now

    def _step_readiness(self, readiness: StartupProbe, now: float) -> None:
        if readiness.is_late(now):
            self._give_up(FailureReason.TIMEOUT, now)
            return
        readiness.step(now)
        self.due = readiness.due

    def _on_ready(self, seconds: float) -> None:
        logger.info("ready after %.1f s", seconds, extra={"instance": self.name})
        self._readiness = None
        now = self._world.clock()
        self._up_since = now
        if self._row is None:
            return
        if self._seen.status is Status.STARTING:
            self.room.ready_since = now
        self._seen.ready(self._row, then=self.room.take_ready)
        self._vigil = liveness_probe_for(self._row, self._world, now)
        self.due = now

    def _step_up(self, row: Row, now: float) -> None:
        if self._vigil is not None:
            if self._vigil.is_hung(now):
                self._give_up(FailureReason.HUNG, now)
                return
            self._vigil.step(now)
            self.due = self._vigil.due
        if self._seen.restarts > 0 and not self.is_doubtful:
            stable_at = self._up_since + stable_seconds(spawn.restart_policy(row))
            if now >= stable_at:
                self._seen.stable(row)
            else:
                self.due = min(self.due, stable_at)

    # -- ending -----------------------------------------------------------------------------------

    def _give_up(self, reason: FailureReason, now: float) -> None:
        """End a process that is wished, but of no use."""
        self._given_up = reason
        self._begin_stop(now)

    def _begin_stop(self, now: float) -> None:
        """Let requests in flight end, if it can have any, and then the process.

        One that was given up keeps its status until it is gone: then it has failed.
        """
        process = self._process
        if process is None:
            return
        self._stop_probing()
        # What is only started anew keeps its room.
        self.room.is_granted = self._wanted_row() is not None
        status = self._seen.status
        drain = None
        is_of_use = self._given_up is None and status in (Status.RUNNING, Status.SHUTTING_DOWN)
        if is_of_use and self._row and not self._is_hurried:
            # Without an operator's doing it can only be the supervisor that wanted it to end, even
            # if a request has wished it back since.
            is_patient = not self._is_leaving and not is_by_operator(self._row.requested_by)
            until = now + self._limits.drain_timeout
            drain = Drain(self._world.off_thread, until=until, is_patient=is_patient)
        self._stop = StopSequence(
            process,
            drain=drain,
            patience_seconds=QUICK_SECONDS if self._is_hurried else self._limits.stop_timeout,
            now=now,
            on_signal=self._on_signal,
        )
        self.due = now
        self._stopped_by = self._stop_cause()
        if status is Status.SHUTTING_DOWN:
            self._begin_drain(drain, revision=0)  # announced by an earlier worker
        elif self._row is not None and self._given_up is None:
            self._seen.shutting_down(
                self._row,
                *self._stopped_by,
                then=lambda revision: self._begin_drain(drain, revision),
            )

    def _begin_drain(self, drain: Drain | None, revision: int) -> None:
        if drain is not None and self._row is not None:
            drain.begin(RemainingTraffic(self.name, self._row.port, revision))

    def _stop_cause(self) -> tuple[str, str]:
        """Cause and reason of a stop, for the history."""
        if self._is_leaving or self._row is None:
            return WORKER_ENDS
        return cause_of_stop(self._row, self._why_it_gives_way)

    def _on_signal(self, number: signal.Signals) -> None:
        level = logging.WARNING if number is signal.SIGKILL else logging.INFO
        logger.log(level, "%s", number.name, extra={"instance": self.name})
        container = self._process.marker.container if self._process else ""
        if container and number is signal.SIGINT:
            patience = 2 * self._limits.stop_timeout
            self._call_docker(lambda: stop_container(container, patience))

    def _stop_probing(self) -> None:
        if self._readiness is not None:
            self._readiness.cancel()
        self._readiness = self._vigil = None
        self.room.forget_ready()

    def _on_exit(self) -> None:
        """The process has ended: bury it, and see what that means for the wish."""
        process, self._process = self._process, None
        stop, self._stop = self._stop, None
        mistake, self._mistake = self._mistake, None
        why, self._given_up = self._given_up, None
        self._stop_probing()
        if process is None:
            return
        exit_code = process.bury()
        logger.info("ended: %s", exit_text(exit_code), extra={"instance": self.name})
        self._clean_up_after(process)
        row = self._row
        if row is None:
            return

        log_tail = self._close_log(row)
        was_ready = self._seen.status is Status.RUNNING
        if self._must_end() or (stop is not None and why is None):
            cause, _ = self._stopped_by if stop is not None else self._stop_cause()
            self._seen.stopped(row, cause, exit_text(exit_code), is_outcome=False)
        elif mistake is not None:
            self._seen.given_up(row, mistake)
        elif why is FailureReason.TIMEOUT:
            self._seen.failed(row, useless(why, self._limits, exit_code, log_tail))
        elif why is not None:
            self._crashed(row, useless(why, self._limits, exit_code, log_tail))
        elif was_ready and exit_code == 0:
            self._seen.stopped(row, "supervisor:exit", "ended by itself", is_outcome=True)
        else:
            self._crashed(row, exit_failure(exit_code, log_tail, was_ready=was_ready))

    def _close_log(self, row: Row) -> list[str]:
        """The launch's last lines, without the key: they go to everybody who waited for it."""
        key = self._world.key_for(row.id)
        lines = spawn.close_log(self.name, self._world.config)
        return [line.replace(key, "***") for line in lines]

    def _crashed(self, row: Row, failure: Failure) -> None:
        """It ended by itself, or could not be started: it is tried again, or that was it."""
        is_curable = failure.is_curable(may_move=row.fixed_port is None)
        crash = Crash(self._seen.restarts, self._seen.has_been_ready, is_curable)
        delay = restart_delay(spawn.restart_policy(row), crash)
        if delay is None:
            self._seen.failed(row, failure)
        else:
            self._restart_at = self._world.clock() + delay
            self._seen.restarting(row, failure, delay)

    def _clean_up_after(self, process: Process) -> None:
        marker = process.marker
        self._world.off_thread(lambda: end_stragglers(marker.launch), lambda _: None, on_error=0)
        if marker.container:
            self._call_docker(lambda: remove_container(marker.container))

    def _call_docker(self, call: Callable[[], None]) -> None:
        def take_answer(_: None) -> None:
            self._docker_calls -= 1

        self._docker_calls += 1
        self._world.off_thread(call, take_answer, on_error=None)
