"""Listeners of a port, and whether they are those of a launch.

Each user of the host can bind a port while a backend starts, or after it has closed its listener,
and would get the backend's key and the prompts. The kernel's tables (``/proc/net/tcp``, proc(5))
name the inode and the user of each listening socket; the inode is found among the descriptors of
the process that holds the socket.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from instances.supervisor.process.markers import marked_processes
from instances.supervisor.process.pidfd import Process
from instances.supervisor.process.process_table import family_of, read_table

_LISTEN = b"0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_NOT_ACCEPTED = (errno.ECONNREFUSED, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
CONNECT_SECONDS = 0.5
_UNREADABLE: frozenset[int] = frozenset({-1})
"""The sockets of a process that hides its descriptors."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Listener:
    """A listening socket of TCP."""

    address: Address
    inode: int
    uid: int


@dataclass(frozen=True)
class PortOwner:
    """Whether a port's listeners are those of a launch."""

    is_ours: bool
    """At least one listener, and all are the launch's."""
    foreign: str = ""
    """Description of a listener that is not the launch's, for the failure."""


OURS = PortOwner(is_ours=True)
NOBODY = PortOwner(is_ours=False)


def owner_of(process: Process, host: str, port: int) -> PortOwner:
    """Return the owner of the listeners that connections to a backend bound to ``host`` reach.

    The listener of a container belongs to docker, so it isn't looked at. Blocks while it reads
    descriptors, for milliseconds.
    """
    if process.marker.container:
        return OURS
    found = reached(list(listeners_of(port)), host)
    if not found:
        return NOBODY
    foreign = _without_own(found, process)
    if not foreign:
        return OURS
    # No process has a socket that was closed since the table was read, or the child has it that
    # was just forked: a listener is foreign if it is so at two looks.
    again = _without_own(reached(list(listeners_of(port)), host), process)
    foreign = [each for each in again if each in foreign]
    if not foreign:
        return NOBODY
    if not _accepts(host, port):
        return NOBODY  # a socket of all IPv6 addresses may leave out those of IPv4 (IPV6_V6ONLY)
    return PortOwner(is_ours=False, foreign=describe(foreign[0], port))


def unchecked(process: Process, host: str, port: int) -> PortOwner:
    """Take each listener for the launch's (``instances.check_listener`` is off)."""
    return OURS


def listeners_of(port: int) -> Iterator[Listener]:
    """Yield the listeners of a port at any address, in this network namespace."""
    for table in _TABLES:
        try:
            file = table.open("rb")
        except OSError:  # no IPv6
            continue
        with file:
            next(file, b"")
            for line in file:
                fields = line.split()
                if fields[3] != _LISTEN:
                    break  # the kernel lists the listeners first, before each connection
                address, _, number = fields[1].partition(b":")
                if int(number, 16) == port:
                    yield Listener(_address(address), int(fields[9]), int(fields[7]))


def reached(listeners: list[Listener], host: str) -> list[Listener]:
    """Return the listeners that a connection to a backend bound to ``host`` may reach.

    The kernel prefers a socket of just this address to one of all addresses, and shares
    connections out among several sockets of one address (SO_REUSEPORT). A backend that is bound to
    all addresses is reached at each of them.
    """
    wanted = _resolved(host)
    if any(address.is_unspecified for address in wanted):
        return listeners
    exact = [each for each in listeners if each.address in wanted]
    return exact or [each for each in listeners if each.address.is_unspecified]


def describe(listener: Listener, port: int) -> str:
    """Describe another program's listener: its process, as far as /proc shows it, or its user."""
    for pid in _all_pids():
        if listener.inode in _sockets_of(pid):
            return f"port {port} is used by process {pid} ({_command_of(pid)})"
    return f"port {port} is used by a program of user {_user_name(listener.uid)}"


def _accepts(host: str, port: int) -> bool:
    """Whether a connection to the port is accepted; nothing is sent."""
    for address in _resolved(host):
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        with socket.socket(family) as connection:
            connection.settimeout(CONNECT_SECONDS)
            try:
                if connection.connect_ex((str(address), port)) in _NOT_ACCEPTED:
                    continue
            except OSError:  # it takes too long: there is a listener, and its queue is full
                return True
            return True
    return False


def _without_own(found: list[Listener], process: Process) -> list[Listener]:
    """Return the listeners without a socket in any process of the launch."""
    unreadable: set[int] = set()
    for pids in _candidates(process):
        for pid in pids:
            sockets = _sockets_of(pid)
            if sockets is _UNREADABLE:
                unreadable.add(_uid_of(pid))
            found = [each for each in found if each.inode not in sockets]
            if not found:
                return []
    # A program with capabilities of its own hides its descriptors from its own user. Its user is
    # known, and a process of the same user could read the key anyway.
    return [each for each in found if each.uid not in unreadable]


def _candidates(process: Process) -> Iterator[Iterable[int]]:
    """Yield the processes of the launch, the likely and cheap ones first."""
    yield [process.pid]
    if process.control_group is not None:
        yield process.control_group.pids()
    yield [pid for pid, _ in family_of([process.identity, *process.noted], read_table())]
    launch = process.marker.launch
    yield [each.pid for each in marked_processes() if launch and each.marker.launch == launch]


def _sockets_of(pid: int) -> frozenset[int]:
    """Return the inodes of a process's sockets."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except PermissionError:
        return _UNREADABLE
    except OSError:
        return frozenset()
    inodes = set()
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return frozenset(inodes)


def _address(text: bytes) -> Address:
    """Parse an address of the table: words of 32 bits, each in the order of this machine."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    return _plain(ip_address(b"".join(words)))


def _plain(address: Address) -> Address:
    """Return the IPv4 address of a socket of IPv6 that stands for one."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _resolved(host: str) -> set[Address]:
    if host == "*":
        return {IPv4Address(0), IPv6Address(0)}
    try:
        return {_plain(ip_address(host.strip("[]")))}
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {_plain(ip_address(str(each[4][0]).partition("%")[0])) for each in found}


def _all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _uid_of(pid: int) -> int:
    try:
        return _real_uid(Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        return -1


def _real_uid(status: bytes) -> int:
    lines = (line.split() for line in status.splitlines() if line.startswith(b"Uid:"))
    return next((int(fields[1]) for fields in lines), -1)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "gone"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
