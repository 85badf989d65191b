"""A backend's process, held by its pidfd: start, signal, reap.

A pidfd names one process, and never a later one with the same pid. It becomes readable when the
process exits, and works alike for a child and for an adopted process of an earlier worker.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from instances.supervisor.process import control_group
from instances.supervisor.process.control_group import ControlGroup
from instances.supervisor.process.markers import CONTAINER_MARKER, Marker
from instances.supervisor.process.process_table import Identity, family_of, read_stat, read_table

logger = logging.getLogger(__name__)

SIGNAL_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9): signals the group, even if its leader has exited."""


class Process:
    """A backend's process: the leader of its own session and process group."""

    def __init__(
        self,
        pid: int,
        started_ticks: int,
        pidfd: int,
        marker: Marker,
        group: ControlGroup | None = None,
    ) -> None:
        self.pid = pid
        self.started_ticks = started_ticks
        self.marker = marker
        self.control_group = group
        """The control group of the launch; ``None`` where llamactl may make none."""
        self.noted: frozenset[Identity] = frozenset()
        """Processes of the launch at the last look, where there is no control group."""
        self.is_reaped = False
        self.ended_in_group = False
        """Whether the leader was in the control group at its end, and so its children are too."""
        self._pidfd = pidfd

    @property
    def identity(self) -> Identity:
        return self.pid, self.started_ticks

    def fileno(self) -> int:
        """The pidfd: readable once the process has exited."""
        return self._pidfd

    def has_exited(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and its whole group; does nothing if none is left."""
        try:
            signal.pidfd_send_signal(self._pidfd, number, None, SIGNAL_GROUP)
        except ProcessLookupError:
            pass
        except PermissionError:
            logger.warning("process %d can't be signalled: it runs as another user", self.pid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._signal_group_by_number(number)

    def _signal_group_by_number(self, number: signal.Signals) -> None:
        """Signal by pid, on a kernel before 6.9, while the pid can't belong to another process.

        The pid is safe as long as the process lives, or is a child that was not reaped.
        """
        if self._is_unreaped_child() or not self.has_exited():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _is_unreaped_child(self) -> bool:
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def reap(self) -> int | None:
        """Reap an exited process; returns its exit code, or minus the signal that ended it.

        The rest of its launch is killed first. ``None`` for a process that is no child: only the
        parent gets the code.
        """
        try:
            self.is_reaped = True
            self.signal_group(signal.SIGKILL)
            self._kill_rest()
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return None
        finally:
            self.close()
            if self.control_group is not None:
                self.control_group.remove()  # if that is all; else once its processes are gone
        if status is None:  # only with WNOHANG
            return None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def _kill_rest(self) -> None:
        """Kill the processes of the launch outside the leader's process group."""
        if self.control_group is not None:
            # systemd-run --scope and pam_systemd move a process to a group of their own.
            current = control_group.group_of(self.pid, self.marker.launch)
            self.ended_in_group = current is not None
            self.control_group.kill()
        if self.noted:
            for pid, ticks in family_of(self.noted, read_table()):
                kill(pid, ticks)

    def close(self) -> None:
        """Close the pidfd; a living process runs on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def kill(pid: int, started_ticks: int) -> bool:
    """Kill the process with this pid and start time; returns whether there was one.

    The start time is compared after the pidfd is opened: the descriptor never names a later process
    with the same pid.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # gone, or no descriptor left
        return False
    try:
        stat = read_stat(pid)
        if stat is None or not stat.is_alive or stat.started_ticks != started_ticks:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone meanwhile; a process of another user
        return False
    finally:
        os.close(pidfd)
    return True


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    marker: Marker,
    directory: Path,
    log: int,
) -> Process:
    """Start a program in its own session, with ``log`` as standard output and error.

    ``environment`` is complete but for the markers. Raises OSError (no such program, no permission,
    arguments too long, no descriptor left …), and then nothing runs.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a child inherits the thread's
    try:
        child = subprocess.Popen(
            argv,
            env={**_unmarked(environment), **marker.to_environment()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            umask=0o077,
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    try:
        pidfd = os.pidfd_open(child.pid)
    except OSError:
        child.kill()
        child.wait()
        raise
    # From here on the pidfd is the handle: Popen must neither reap the child nor warn, when it is
    # collected, that the child was not reaped.
    child.returncode = 0
    group = control_group.create_for(marker.launch, child.pid)
    stat = read_stat(child.pid)  # there even after an exit, before the child is reaped
    return Process(child.pid, stat.started_ticks if stat else 0, pidfd, marker, group)


def _unmarked(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without a name of a container: that is for docker's client alone."""
    return {name: value for name, value in environment.items() if name != CONTAINER_MARKER}


def reset_ignored_signals() -> None:
    """Give each ignored signal an empty handler, so that backends do not ignore it.

    Main thread only. exec resets handlers, but an ignored signal stays ignored: a backend of a
    worker that was started with ``nohup``, or with ``&`` in a script, could not be stopped. Popen
    resets SIGPIPE and SIGXFSZ, which Python itself ignores.
    """
    by_python = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - by_python:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: object) -> None:
    """Handle a signal by ignoring it."""
