"""How is a backend's process started, signalled and buried?

A process is held by its pidfd: that names this very process and no later one that happens to get
its number, it becomes readable at the moment of the exit, and it works alike for a child of ours
and for a process that an earlier worker left behind.
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
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SIGNAL_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9): the group that the process leads, dead or alive."""

NODE_MARKER = "LLAMACTL_NODE"
INSTANCE_MARKER = "LLAMACTL_INSTANCE"
LAUNCH_MARKER = "LLAMACTL_LAUNCH"
CONTAINER_MARKER = "LLAMACTL_CONTAINER"


@dataclass(frozen=True)
class Marker:
    """What a backend carries in its environment, so that it is known again without a record."""

    node: str
    """The path of the node's lock file: whoever holds that lock owns the process."""
    instance: str
    """``<id>:<name>``: a name alone may have been given to another instance meanwhile."""
    launch: str
    container: str = ""

    def to_environment(self) -> dict[str, str]:
        environment = {
            NODE_MARKER: self.node,
            INSTANCE_MARKER: self.instance,
            LAUNCH_MARKER: self.launch,
        }
        return environment | ({CONTAINER_MARKER: self.container} if self.container else {})


@dataclass(frozen=True)
class ProcessStat:
    """The fields of ``/proc/<pid>/stat`` that say who a process is."""

    state: str
    session: int
    started_ticks: int
    """Clock ticks from boot to its start: with the pid, its identity until the next boot."""

    @property
    def is_alive(self) -> bool:
        """A zombie is dead; where PID 1 reaps lazily it may stay one for long."""
        return self.state not in "ZXx"


def read_stat(pid: int) -> ProcessStat | None:
    """What the kernel says of ``pid``; ``None`` if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets, and may itself hold blanks and brackets.
    fields = text.rpartition(b")")[2].split()
    return ProcessStat(fields[0].decode(), int(fields[3]), int(fields[19]))


class Process:
    """The leader of a backend's session and process group."""

    def __init__(self, pid: int, started_ticks: int, pidfd: int, marker: Marker) -> None:
        self.pid = pid
        self.started_ticks = started_ticks
        self.marker = marker
        self._pidfd = pidfd

    def fileno(self) -> int:
        """The pidfd: readable once the process has exited."""
        return self._pidfd

    def has_exited(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and all that it started in its group; fine if none is left."""
        try:
            signal.pidfd_send_signal(self._pidfd, number, None, SIGNAL_GROUP)
        except ProcessLookupError:
            pass
        except PermissionError:
            logger.warning("process %d may not be signalled: it runs as another user", self.pid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._signal_group_by_number(number)

    def _signal_group_by_number(self, number: signal.Signals) -> None:
        """For kernels that can't by pidfd: only while the number is certainly still its own.

        That is as long as it lives, or, a child of ours, has not been waited for.
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

    def bury(self) -> int | None:
        """Clean up after the exit; returns the exit code, or minus the signal that ended it.

        What is left of its group is killed before it is waited for. ``None`` for a process that
        is no child of ours: only its parent gets to know.
        """
        try:
            self.signal_group(signal.SIGKILL)
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return None
        finally:
            self.close()
        if status is None:  # only with WNOHANG
            return None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def close(self) -> None:
        """Let go of it, whether it lives or not."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    marker: Marker,
    directory: Path,
    log: int,
) -> Process:
    """Start a program in a session of its own, with ``log`` as standard output and error.

    ``environment`` is complete but for the markers. Raises OSError (no such program, no
    permission, arguments too long, no descriptor left …), and then nothing runs.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a child inherits the thread's
    try:
        child = subprocess.Popen(
            argv,
            env={**environment, **marker.to_environment()},
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
    # From here on the pidfd is the handle: Popen shall neither wait for the child nor complain,
    # when it is collected, that nobody has.
    child.returncode = 0
    stat = read_stat(child.pid)  # there even if it has exited already: nobody has waited for it
    return Process(child.pid, stat.started_ticks if stat else 0, pidfd, marker)


def heed_ignored_signals() -> None:
    """Replace each ignored signal by a handler that does nothing. Main thread only.

    An exec resets handlers, but a signal that is ignored stays ignored: a backend of a worker
    that was started by ``nohup`` or ``&`` in a script could not be stopped by it. SIGPIPE and the
    like, which Python itself ignores, Popen resets.
    """
    by_python = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - by_python:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: object) -> None:
    """A signal handler."""
