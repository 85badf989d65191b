"""The orphan guard: ends a node's backends if no worker comes back for them.

A separate program, one a node, started by the supervisor and outliving the worker::

    python -I -S program.py LOCK ORDERS TOKEN GRACE PATIENCE DOCKER INSTALLATION

The guard waits until the node's lock (``LOCK``) is free, and then ``GRACE`` seconds for a worker.
Without a worker the guard takes the lock, so that a worker that comes back in this moment waits
instead of adopting ending backends. Then it ends the backends: SIGINT, SIGTERM and SIGKILL,
``PATIENCE`` seconds apart. The desired state stays, so the next worker starts them again.

The supervisor writes ``ORDERS``: ``TOKEN``, as long as this guard is needed, and lines about the
backends' processes (``NodeFiles``). ``DOCKER`` is the path of docker, or empty. Containers are
ended only with the label ``INSTALLATION``: a process may have any name of a container in its
environment.

The guard imports a few modules of the standard library alone, all at the start: it must be small,
and must run on while an upgrade replaces the installation.
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
SCAN_SECONDS = 10.0
"""Interval of scans for remaining backends, during the grace period."""
KILL_ROUNDS = 3
DOCKER_SECONDS = 30.0
SIGNAL_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9)."""

NODE_MARKER = b"LLAMACTL_NODE="
CONTAINER_MARKER = b"LLAMACTL_CONTAINER="
TEMPLATE = '{{.Id}} {{index .Config.Labels "llamactl.installation"}}'


class GuardedProcess:
    """A process of the node, held by its pidfd, which never names a later process."""

    def __init__(
        self, pid: int, ticks: int, pidfd: int, container: str, *, is_leader: bool, is_led: bool
    ) -> None:
        self.pid = pid
        self.ticks = ticks
        self.container = container
        self.is_led = is_led
        """Whether a signal to the leader of its group reaches the process, too."""
        self._is_leader = is_leader
        self._pidfd = pidfd

    def fileno(self) -> int:
        return self._pidfd

    def has_exited(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: int) -> None:
        """Signal the process, and the group that it leads; does nothing if it is gone."""
        try:
            signal.pidfd_send_signal(
                self._pidfd, number, None, SIGNAL_GROUP if self._is_leader else 0
            )
        except ProcessLookupError:
            pass
        except OSError as error:
            if error.errno != errno.EINVAL:
                log(f"process {self.pid} can't be signalled: {error.strerror}")
            elif not self.has_exited():  # a kernel before 6.9, and the pid can't be another's
                os.killpg(self.pid, number)

    def close(self) -> None:
        os.close(self._pidfd)


def log(text: str) -> None:
    """Write a line to the guard's log, which is standard output."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    try:  # noqa: SIM105 - without contextlib: the guard imports as little as possible
        os.write(1, f"{stamp} guard {os.getpid()}: {text}\n".encode("utf-8", "replace"))
    except OSError:  # a full disk must not stop the guard
        pass


# -- the node -------------------------------------------------------------------------------------


class KnownProcesses:
    """Processes of the node that the supervisor knew, by pid and start time or control group."""

    def __init__(
        self,
        leaders: set[tuple[int, int]],
        noted: set[tuple[int, int]] | None = None,
        groups: list[str] | None = None,
    ) -> None:
        self.leaders = leaders
        self.noted = noted or set()
        self._groups = groups or []

    def group_members(self) -> set[int]:
        """Return the processes of the launches' control groups."""
        found = set()
        for group in self._groups:
            for directory, _, _ in os.walk(group):
                try:
                    with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                        found |= {int(line) for line in file}
                except OSError:  # removed meanwhile
                    continue
        return found


class NodeFiles:
    """The lock of the node, and the orders of its supervisor.

    The lines of the orders: ``PID TICKS`` for the leader of a launch; ``PID TICKS of LEADER TICKS``
    for a process that was seen as its descendant; ``group DIRECTORY`` for its control group.
    """

    def __init__(self, lock_path: str, orders_path: str, token: str) -> None:
        self._lock_path = lock_path
        self._orders_path = orders_path
        self._token = token
        self._lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)

    def is_dismissed(self) -> bool:
        """Whether the supervisor has another guard, or needs none."""
        lines = self._orders()
        return bool(lines) and lines[0] != self._token

    def known(self) -> KnownProcesses:
        """Return what the supervisor wrote last about its backends' processes."""
        lines = [line.split() for line in self._orders()[1:]]
        numbered = [words for words in lines if "".join(words[:2]).isdecimal()]
        return KnownProcesses(
            leaders={(int(words[0]), int(words[1])) for words in numbered if len(words) == 2},
            noted={(int(words[0]), int(words[1])) for words in numbered if len(words) == 5},
            groups=[line[6:] for line in self._orders()[1:] if line.startswith("group ")],
        )

    def is_held(self) -> bool:
        """Whether a worker has the lock.

        This takes a shared lock for an instant; a worker that tries in that instant tries again.
        """
        if not self._try(fcntl.LOCK_SH):
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False

    def take(self) -> bool:
        """Take the lock; returns ``False`` if a worker has it, or the file was replaced."""
        if not self._try(fcntl.LOCK_EX):
            return False
        try:
            same = os.path.samestat(os.stat(self._lock_path), os.fstat(self._lock))
        except FileNotFoundError:  # no worker can lock a deleted file
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
            with open(self._orders_path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read().split("\n")
        except OSError:
            return []


# -- the processes of the node --------------------------------------------------------------------


def find_processes(node: str, known: KnownProcesses) -> list[GuardedProcess]:
    """Find the living processes of the node by marker, or as the supervisor knew them.

    Members of a led group are included: the guard waits for them, and could not find an exiting
    process again, because its environment is gone.
    """
    wanted = NODE_MARKER + os.fsencode(node)
    stats = {}
    environments = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid() and is_own_user(int(name)):
            stat = read_stat(int(name))
            environ = read_environ(int(name))
            if stat is not None and environ is not None:
                stats[int(name)] = stat
                environments[int(name)] = environ
    # Sessions with another node's marker: adopted by pid and start time, but not by this node.
    others = {
        stats[pid][1]
        for pid, environ in environments.items()
        if wanted not in environ and any(entry.startswith(NODE_MARKER) for entry in environ)
    }
    # Read after the start times: a later process with the same pid is told by its own.
    members = known.group_members()
    seen = {}
    for pid, stat in stats.items():
        identity = (pid, stat[2])
        is_leader = identity in known.leaders and stat[1] == pid and pid not in others
        is_known = is_leader or identity in known.noted or pid in members
        container = container_of(environments[pid], wanted, is_known=is_known)
        if container is not None:
            seen[pid] = (stat, container)
    found = []
    for pid, ((group, _, ticks), container) in seen.items():
        is_led = group != pid and group in seen
        backend = open_process(pid, ticks, container, is_leader=group == pid, is_led=is_led)
        if backend is not None:
            found.append(backend)
    return found


def container_of(environ: list[bytes], wanted: bytes, *, is_known: bool) -> str | None:
    """Return the process's container, or an empty name; ``None`` for a process of another node."""
    if wanted in environ:
        names = [entry for entry in environ if entry.startswith(CONTAINER_MARKER)]
        return os.fsdecode(names[0][len(CONTAINER_MARKER) :]) if names else ""
    # Some programs overwrite their environment to set their title.
    return "" if is_known else None


def read_environ(pid: int) -> list[bytes] | None:
    """Read the environment of a process; ``None`` if it is not readable or gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return None


def is_own_user(pid: int) -> bool:
    """Whether real and effective user are the guard's: a setuid program has a foreign real user."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            uids = [line.split()[1:] for line in file if line[:4] == b"Uid:"]
    except OSError:
        return False
    return bool(uids) and set(map(int, uids[0])) == {os.getuid()}


def read_stat(pid: int) -> tuple[int, int, int] | None:
    """Read process group, session and start time; ``None`` for a dead process or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in b"ZXx":
        return None
    return int(fields[2]), int(fields[3]), int(fields[19])


def open_process(
    pid: int, ticks: int, container: str, *, is_leader: bool, is_led: bool
) -> GuardedProcess | None:
    """Open the process, if it still has this start time."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    stat = read_stat(pid)
    if stat is None or stat[2] != ticks:
        os.close(pidfd)
        return None
    return GuardedProcess(pid, ticks, pidfd, container, is_leader=is_leader, is_led=is_led)


def end_all(node: str, known: KnownProcesses, patience: float, docker: Docker) -> bool:
    """End all processes of the node; returns whether none is left."""
    signals = [signal.SIGINT, signal.SIGTERM, *[signal.SIGKILL] * KILL_ROUNDS]
    for number in signals:
        found = find_processes(node, known)
        for backend in found:
            if backend.is_led:
                continue
            log(f"{number.name} to process {backend.pid}")
            backend.signal(number)
            docker.stop(backend.container, max(1, 2 * patience))
        wait_for(found, patience)
        for backend in found:
            if backend.has_exited() and not backend.is_led:
                backend.signal(signal.SIGKILL)  # the rest of its group
            backend.close()
        if not found:
            break
    docker.remove_all(2 * patience)
    left = find_processes(node, known)
    for backend in left:
        log(f"process {backend.pid} did not end")
        backend.close()
    return not left


class Docker:
    """The containers that the processes name in their environments, by name."""

    def __init__(self, program: str, installation: str) -> None:
        self._program = program
        self._installation = installation
        self._ids: dict[str, str] = {}
        self._stops: list[int] = []

    def stop(self, name: str, seconds: float) -> None:
        """Begin to stop a container of this installation, once."""
        if self._program and name and name not in self._ids:
            self._ids[name] = container = self._own_id(name)
            if container:
                log(f"docker stop {name}")
                self._stops += run([self._program, "stop", "-t", f"{seconds:.0f}", container])

    def remove_all(self, stop_seconds: float) -> None:
        """Wait for the stops, and remove the containers."""
        await_commands(self._stops, stop_seconds + DOCKER_SECONDS)
        removals = []
        for container in filter(None, self._ids.values()):
            log(f"docker rm {container}")
            removals += run([self._program, "rm", "-f", container])
        await_commands(removals, DOCKER_SECONDS)

    def _own_id(self, name: str) -> str:
        """Return the container's id; empty without the label of this installation."""
        output = os.memfd_create("docker")
        command = [self._program, "inspect", "--type", "container", "--format", TEMPLATE, name]
        await_commands(run(command, output), DOCKER_SECONDS)
        words = os.pread(output, 4096, 0).decode("ascii", "replace").split()
        os.close(output)
        if words[1:] == [self._installation]:
            return words[0]
        log(f"container {name} is gone, or lacks the label of this llamactl: left alone")
        return ""


def wait_for(found: list[GuardedProcess], seconds: float) -> None:
    """Wait until all have exited, for at most ``seconds``."""
    deadline = time.monotonic() + seconds
    for backend in found:
        poll = select.poll()
        poll.register(backend, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def run(command: list[str], output: int = 2) -> list[int]:
    """Start a command; returns its pid, or nothing if it can't be started."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    redirected = [*null, (os.POSIX_SPAWN_DUP2, output, 1)]
    try:
        return [os.posix_spawn(command[0], command, os.environ, file_actions=redirected)]
    except OSError as error:
        log(f"{command[0]}: {error.strerror}")
        return []


def await_commands(pids: list[int], seconds: float) -> None:
    """Wait for the commands, and kill a slow one: the node is locked meanwhile."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        pidfd = os.pidfd_open(pid)  # an unreaped child: the pid is its own
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            log(f"docker (process {pid}) did not end")
            os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


def guard(files: NodeFiles, node: str, grace: float, patience: float, docker: Docker) -> int:
    """1. Wait for the worker's end. 2. Wait for the next worker. 3. Without one, end all."""
    while True:
        while files.is_held():
            if files.is_dismissed():
                return 0
            time.sleep(POLL_SECONDS)
        if not wait_for_worker(files, node, grace):
            return 0
        if not files.take():
            continue  # a worker is back, and has not written its orders yet
        if files.is_dismissed():
            return 0
        log(f"no worker for {grace:g} s: ending the backends")
        is_done = end_all(node, files.known(), patience, docker)
        log("done; the next worker starts them again" if is_done else "some processes did not end")
        return 0 if is_done else 1


def wait_for_worker(files: NodeFiles, node: str, grace: float) -> bool:
    """Wait for the grace period; returns ``False`` if the guard is not needed any more."""
    began = time.monotonic()
    is_logged = False
    scan_at = began
    while (now := time.monotonic()) < began + grace:
        if files.is_dismissed():
            return False
        if now >= scan_at:
            scan_at = now + SCAN_SECONDS
            found = find_processes(node, files.known())
            for backend in found:
                backend.close()
            if not found:
                return False
            if not is_logged:
                count = sum(not backend.is_led for backend in found)
                log(f"no worker; {count} backends will be ended in {grace:g} s")
                is_logged = True
        time.sleep(min(POLL_SECONDS, began + grace - now))
    return True


def main(arguments: list[str]) -> int:
    lock_path, orders_path, token, grace, patience, docker, installation = arguments
    for number in (signal.SIGINT, signal.SIGHUP):  # from a terminal, and meant for the worker
        signal.signal(number, signal.SIG_IGN)
    files = NodeFiles(lock_path, orders_path, token)
    return guard(files, lock_path, float(grace), float(patience), Docker(docker, installation))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
