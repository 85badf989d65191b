"""What becomes of a node's backends if no worker comes back for them?

A program of its own, one a node, started by the supervisor and outliving it::

    python -I -S orphan_guard.py LOCK ORDERS TOKEN GRACE PATIENCE DOCKER

It waits until nobody holds the node's lock (``LOCK``), and then for a worker, for ``GRACE``
seconds. If none comes it takes the lock, so that a worker which comes back just then waits instead
of adopting what is being ended, and ends the backends: SIGINT, SIGTERM and SIGKILL, ``PATIENCE``
seconds apart. What is wished of them stays as it is, and the next worker starts them again.

``ORDERS`` is the supervisor's to write: ``TOKEN``, as long as this guard is wanted, and the pid and
start time of each backend. ``DOCKER`` is docker's path, or empty.

It imports the standard library alone, and little of it, all at the start: it has to be small, and
to work on when the installation is being replaced under it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import time

POLL_SECONDS = 1.0
LOOK_SECONDS = 10.0
"""How often it looks, during the grace, whether there is still anything to guard."""
KILL_ROUNDS = 3
DOCKER_SECONDS = 30.0
SIGNAL_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9)."""

NODE_MARKER = b"LLAMACTL_NODE="
CONTAINER_MARKER = b"LLAMACTL_CONTAINER="


class GuardedProcess:
    """A process of the node, held by its pidfd: that is this process and no later one."""

    def __init__(
        self, pid: int, ticks: int, pidfd: int, container: str, *, leads: bool, is_led: bool
    ) -> None:
        self.pid = pid
        self.ticks = ticks
        self.container = container
        self.is_led = is_led
        """Whether a signal reaches it by the leader of its group, and it is only waited for."""
        self._leads = leads
        self._pidfd = pidfd

    def fileno(self) -> int:
        return self._pidfd

    def has_exited(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: int) -> None:
        """Signal it, with all its group if it leads one; fine if it is gone."""
        try:
            signal.pidfd_send_signal(self._pidfd, number, None, SIGNAL_GROUP if self._leads else 0)
        except ProcessLookupError:
            pass
        except OSError as error:
            if error.errno != errno.EINVAL:
                say(f"process {self.pid} can't be signalled: {error.strerror}")
            elif (
                not self.has_exited()
            ):  # an older kernel, and the number is certainly still its own
                os.killpg(self.pid, number)

    def close(self) -> None:
        os.close(self._pidfd)


def say(text: str) -> None:
    """A line of the guard's log, which standard output is."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    try:  # noqa: SIM105 - contextlib is left out, as all that can be
        os.write(1, f"{stamp} guard {os.getpid()}: {text}\n".encode("utf-8", "replace"))
    except OSError:  # a full disk must not keep it from doing what it is there for
        pass


# -- whose turn is it -----------------------------------------------------------------------------


class Watch:
    """The node's lock, and the orders."""

    def __init__(self, lock_path: str, orders_path: str, token: str) -> None:
        self._lock_path = lock_path
        self._orders_path = orders_path
        self._token = token
        self._lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)

    def is_dismissed(self) -> bool:
        """Whether a supervisor has another guard by now, or needs none."""
        lines = self._orders()
        return bool(lines) and lines[0] != self._token

    def backends(self) -> set[tuple[int, int]]:
        """Pid and start time of those that the supervisor had last."""
        pairs = (line.split() for line in self._orders()[1:])
        return {(int(pair[0]), int(pair[1])) for pair in pairs if len(pair) == 2}

    def is_held(self) -> bool:
        """Whether a worker has the node.

        A shared lock for an instant: a worker that asks in that very instant asks again.
        """
        if not self._try(fcntl.LOCK_SH):
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False

    def take(self) -> bool:
        """Have the node ourselves from now on; not if a worker has it, or another file is it."""
        if not self._try(fcntl.LOCK_EX):
            return False
        try:
            same = os.path.samestat(os.stat(self._lock_path), os.fstat(self._lock))
        except FileNotFoundError:  # nobody can have a lock that isn't there
            same = True
        if same:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        return same

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _orders(self) -> list[str]:
        try:
            with open(self._orders_path, encoding="ascii", errors="replace") as file:
                return file.read().split("\n")
        except OSError:
            return []


# -- which processes are ours ---------------------------------------------------------------------


def find(node: str, recorded: set[tuple[int, int]]) -> list[GuardedProcess]:
    """The living processes of the node: by marker, or by pid and start time (adoption's proofs).

    Also those whom a signal to their leader reaches: they are to be waited for, and one that is
    exiting could not be found again, for it has no environment any more.
    """
    wanted = NODE_MARKER + os.fsencode(node)
    seen = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            stat = read_stat(int(name))
            if stat is not None:
                container = whose(int(name), stat, wanted, recorded)
                if container is not None:
                    seen[int(name)] = (stat, container)
    found = []
    for pid, ((group, _, ticks), container) in seen.items():
        is_led = group != pid and group in seen
        backend = take(pid, ticks, container, leads=group == pid, is_led=is_led)
        if backend is not None:
            found.append(backend)
    return found


def whose(
    pid: int, stat: tuple[int, int, int], wanted: bytes, recorded: set[tuple[int, int]]
) -> str | None:
    """The name of its container, or an empty one; ``None`` for a process that isn't the node's."""
    _, session, ticks = stat
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read().split(b"\0")
        is_own_user = os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except OSError:  # another user's, or gone
        return None
    if wanted in environ:
        names = [entry for entry in environ if entry.startswith(CONTAINER_MARKER)]
        return os.fsdecode(names[0][len(CONTAINER_MARKER) :]) if names else ""
    # Some programs overwrite their environment to set their title.
    return "" if is_own_user and session == pid and (pid, ticks) in recorded else None


def read_stat(pid: int) -> tuple[int, int, int] | None:
    """Process group, session and start time; ``None`` if it is dead (a zombie is)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in b"ZXx":
        return None
    return int(fields[2]), int(fields[3]), int(fields[19])


def take(
    pid: int, ticks: int, container: str, *, leads: bool, is_led: bool
) -> GuardedProcess | None:
    """Hold it by a pidfd, if it is still the one that was looked at."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    stat = read_stat(pid)
    if stat is None or stat[2] != ticks:
        os.close(pidfd)
        return None
    return GuardedProcess(pid, ticks, pidfd, container, leads=leads, is_led=is_led)


# -- the end --------------------------------------------------------------------------------------


def end_all(node: str, recorded: set[tuple[int, int]], patience: float, docker: str) -> bool:
    """End every process of the node; returns whether none is left."""
    containers: set[str] = set()
    stops: list[int] = []
    signals = [signal.SIGINT, signal.SIGTERM, *[signal.SIGKILL] * KILL_ROUNDS]
    for number in signals:
        found = find(node, recorded)
        for backend in found:
            if backend.is_led:
                continue
            say(f"{number.name} to process {backend.pid}")
            backend.signal(number)
            if docker and backend.container and backend.container not in containers:
                containers.add(backend.container)
                say(f"docker stop {backend.container}")
                seconds = str(max(1, round(2 * patience)))
                stops += run([docker, "stop", "-t", seconds, backend.container])
        wait_for(found, patience)
        for backend in found:
            if backend.has_exited() and not backend.is_led:
                backend.signal(signal.SIGKILL)  # what is left of its group
            backend.close()
        if not found:
            break
    await_commands(stops, 2 * patience + DOCKER_SECONDS)
    removals = []
    for name in containers:
        say(f"docker rm {name}")
        removals += run([docker, "rm", "-f", name])
    await_commands(removals, DOCKER_SECONDS)
    left = find(node, recorded)
    for backend in left:
        say(f"process {backend.pid} did not end")
        backend.close()
    return not left


def wait_for(found: list[GuardedProcess], seconds: float) -> None:
    """Until all have exited, or that long."""
    deadline = time.monotonic() + seconds
    for backend in found:
        poll = select.poll()
        poll.register(backend, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def run(command: list[str]) -> list[int]:
    """Start a command; its pid, or nothing if it can't be started."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        return [os.posix_spawn(command[0], command, os.environ, file_actions=null)]
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        return []


def await_commands(pids: list[int], seconds: float) -> None:
    """Until they have ended; one that takes longer is killed, for the node is locked meanwhile."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        pidfd = os.pidfd_open(pid)  # a child that nobody has waited for: the number is its own
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            say(f"docker (process {pid}) did not end")
            os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


# -- the guard ------------------------------------------------------------------------------------


def guard(watch: Watch, node: str, grace: float, patience: float, docker: str) -> int:
    """1. Wait for the worker's end. 2. Wait for its return. 3. If there is none, end everything."""
    while True:
        while watch.is_held():
            if watch.is_dismissed():
                return 0
            time.sleep(POLL_SECONDS)
        began = time.monotonic()
        said = False
        look_at = began
        while (now := time.monotonic()) < began + grace:
            if watch.is_dismissed():
                return 0
            if now >= look_at:
                look_at = now + LOOK_SECONDS
                found = find(node, watch.backends())
                for backend in found:
                    backend.close()
                if not found:
                    return 0
                if not said:
                    count = sum(not backend.is_led for backend in found)
                    say(f"no worker; {count} backends will be ended in {grace:g} s")
                    said = True
            time.sleep(min(POLL_SECONDS, began + grace - now))
        if not watch.take():
            continue  # a worker is back, and has not written new orders yet
        if watch.is_dismissed():
            return 0
        say(f"no worker for {grace:g} s: ending the backends")
        is_done = end_all(node, watch.backends(), patience, docker)
        say("done; the next worker starts them again" if is_done else "gave up")
        return 0 if is_done else 1


def main(arguments: list[str]) -> int:
    lock_path, orders_path, token, grace, patience, docker = arguments
    for number in (signal.SIGINT, signal.SIGHUP):  # meant for whoever sits at the terminal
        signal.signal(number, signal.SIG_IGN)
    watch = Watch(lock_path, orders_path, token)
    return guard(watch, lock_path, float(grace), float(patience), docker)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
