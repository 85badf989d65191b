"""Listeners of a port: whose are they?"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest

from instances.supervisor.process import listeners
from instances.supervisor.process.listeners import NOBODY, OURS, owner_of
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import read_stat
from tests.support.until import until

LISTEN = """
import socket, sys, time
host, port, options = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
for option in filter(None, options):
    if option == "V6ONLY":
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    else:
        one.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
one.bind((host, port))
one.listen()
print(one.getsockname()[1], flush=True)
time.sleep(600)
"""

Listen = Callable[..., tuple[Process, int]]


def process_of(pid: int, container: str = "") -> Process:
    stat = read_stat(pid)
    assert stat is not None
    return Process(pid, stat.started_ticks, -1, Marker("n", "1:one", "l", container))


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts a program that listens; returns its process and port."""
    started: list[subprocess.Popen[str]] = []

    def start(
        host: str = "127.0.0.1", port: int = 0, options: str = "", container: str = ""
    ) -> tuple[Process, int]:
        program = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LISTEN, host, str(port), options],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(program)
        assert program.stdout is not None
        return process_of(program.pid, container), int(program.stdout.readline())

    yield start
    for program in started:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


@pytest.fixture
def stranger() -> Iterator[Process]:
    """A process that is no relative of the listeners."""
    program = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process_of(program.pid)
    program.kill()
    program.wait()


HOSTS = ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "127.0.0.7"]


@pytest.mark.parametrize("host", HOSTS)
def test_the_process_that_listens_is_the_owner(
    listen: Listen, stranger: Process, host: str
) -> None:
    process, port = listen(host)
    assert owner_of(process, host, port) == OURS
    assert not owner_of(stranger, host, port).is_ours


@pytest.mark.parametrize(
    ("bound", "asked"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "*"),
        ("::1", "[::1]"),
        ("::1", "::"),
    ],
)
def test_a_foreign_listener_that_a_connection_may_reach_counts(
    listen: Listen, stranger: Process, bound: str, asked: str
) -> None:
    process, port = listen(bound)
    owner = owner_of(stranger, asked, port)
    assert not owner.is_ours
    assert owner.foreign.startswith(f"port {port} is used by process {process.pid} (python")


def test_a_port_without_a_listener_has_no_owner(listen: Listen) -> None:
    process, port = listen("127.0.0.7")
    assert owner_of(process, "127.0.0.1", port) == NOBODY


def test_a_foreign_listener_at_the_exact_address_hides_one_of_all_addresses(
    listen: Listen,
) -> None:
    ours, port = listen("::", options="V6ONLY")
    foreign, _ = listen("127.0.0.1", port)
    owner = owner_of(ours, "127.0.0.1", port)
    assert f"process {foreign.pid} " in owner.foreign
    # A backend of all addresses is reached at each of them.
    assert f"process {foreign.pid} " in owner_of(ours, "::", port).foreign


def test_a_listener_of_ipv6_alone_is_no_obstacle_to_one_of_ipv4(
    listen: Listen, stranger: Process
) -> None:
    foreign, port = listen("::", options="V6ONLY")
    assert owner_of(stranger, "127.0.0.1", port) == NOBODY
    assert f"process {foreign.pid} " in owner_of(stranger, "::1", port).foreign
    ours, _ = listen("127.0.0.1", port)
    assert owner_of(ours, "127.0.0.1", port) == OURS


def test_a_listener_whose_queue_is_full_counts(listen: Listen, stranger: Process) -> None:
    _, port = listen()
    waiting = [socket.socket() for _ in range(300)]
    try:
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        assert owner_of(stranger, "127.0.0.1", port).foreign
    finally:
        for each in waiting:
            each.close()


def test_all_listeners_of_a_shared_port_have_to_be_ours(listen: Listen) -> None:
    """With SO_REUSEPORT the kernel shares the connections out among the listeners."""
    ours, port = listen(options="SO_REUSEPORT")
    assert owner_of(ours, "127.0.0.1", port) == OURS
    foreign, _ = listen(port=port, options="SO_REUSEPORT")
    owner = owner_of(ours, "127.0.0.1", port)
    assert not owner.is_ours
    assert f"process {foreign.pid} " in owner.foreign


def test_a_listener_of_a_descendant_is_ours(listen: Listen, stranger: Process) -> None:
    child, port = listen()
    assert owner_of(process_of(os.getpid()), "127.0.0.1", port) == OURS
    assert not owner_of(stranger, "127.0.0.1", port).is_ours
    stranger.noted = frozenset({child.identity})
    assert owner_of(stranger, "127.0.0.1", port) == OURS


def test_a_noted_process_whose_pid_another_one_has_is_not_ours(
    listen: Listen, stranger: Process
) -> None:
    other, port = listen()
    stranger.noted = frozenset({(other.pid, other.started_ticks - 1)})
    assert not owner_of(stranger, "127.0.0.1", port).is_ours


def test_the_listener_of_a_container_is_dockers(listen: Listen) -> None:
    process, port = listen(container="llamactl-one")
    listen(port=port, host="127.0.0.7")
    assert owner_of(process, "127.0.0.7", port) == OURS


def test_a_hidden_listener_is_told_by_its_user(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program with capabilities of its own hides its descriptors from its own user."""
    process, port = listen()
    monkeypatch.setattr(listeners, "_sockets_of", lambda pid: listeners._UNREADABLE)
    assert owner_of(process, "127.0.0.1", port) == OURS
    monkeypatch.setattr(listeners, "_uid_of", lambda pid: 12345)
    name = pwd.getpwuid(os.getuid()).pw_name
    owner = owner_of(process, "127.0.0.1", port)
    assert owner.foreign == f"port {port} is used by a program of user {name}"


def test_a_listener_that_is_closed_during_the_look_is_not_foreign(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its inode is in the table that was read, and among no process's descriptors any more."""
    ours, port = listen()
    candidates = listeners._candidates
    successors: list[Process] = []

    def close_first(process: Process) -> Iterable[Iterable[int]]:
        if not successors:
            os.kill(process.pid, signal.SIGKILL)
            until(lambda: not list(listeners.listeners_of(port)), "closed")
            successors.append(listen(port=port)[0])
        return candidates(process)

    monkeypatch.setattr(listeners, "_candidates", close_first)
    assert owner_of(ours, "127.0.0.1", port) == NOBODY
    # Its successor is found by the next look.
    foreign = owner_of(ours, "127.0.0.1", port).foreign
    assert foreign.startswith(f"port {port} is used by process {successors[0].pid} (python")


def test_connections_of_a_port_are_no_listeners(listen: Listen) -> None:
    process, port = listen()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        local = connection.getsockname()[1]
        assert until(lambda: owner_of(process, "127.0.0.1", port) == OURS)
        assert owner_of(process, "127.0.0.1", local) == NOBODY
