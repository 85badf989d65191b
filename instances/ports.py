"""Ports of instances: choice, and state in the kernel."""

from __future__ import annotations

import socket
from collections.abc import Container
from pathlib import Path

from instances.errors import PortOutOfRange, PortUnavailable
from llamactl.config import AppConfig

# Of the fourth column of /proc/net/tcp.
_ESTABLISHED = "01"
_LISTEN = "0A"


def choose_port(requested: int | None, taken: Container[int], config: AppConfig) -> int:
    """Return the requested port, or else the lowest free port of ``instances.port_range``.

    ``taken`` holds the ports of the node's other instances. llamactl's own ports are never chosen.
    Call this function in the transaction that saves the port: the unique constraint decides a race.

    Raises PortOutOfRange (400) or PortUnavailable (409).
    """
    low, high = config.instances.port_range
    own = (config.server.port, config.server.ui_port)
    if requested is not None:
        if not low <= requested <= high:
            raise PortOutOfRange(
                f"port {requested} is out of range [{low}-{high}]; leave port out to get a free"
                " one, or widen instances.port_range"
            )
        if requested in own:
            raise PortUnavailable(f"port {requested} is already in use: it is llamactl's own port")
        if requested in taken:
            raise PortUnavailable(
                f"port {requested} is already in use: another instance has it; leave port out to"
                " get a free one"
            )
        return requested
    for port in range(low, high + 1):
        if port not in own and port not in taken:
            return port
    raise PortUnavailable(
        f"failed to allocate port: no available ports in range [{low}-{high}]; delete an instance"
        " or widen instances.port_range"
    )


def is_bindable(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether no process listens on ``port``. Valid on the node only, and only as a hint.

    Connections in TIME_WAIT, left by a server that has ended, do not count: on Linux SO_REUSEADDR
    ignores TIME_WAIT but not a listener. A server that listened with SO_REUSEPORT (llama-server did
    until 2026) leaves connections that only SO_REUSEPORT ignores; that option ignores such a
    listener too, so the kernel's table of sockets is read in addition.
    """
    if _binds(port, host, socket.SO_REUSEADDR):
        return True
    shared = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    return _binds(port, host, *shared) and not _has_sockets(port, _LISTEN, if_unknown=True)


def has_connections(port: int) -> bool:
    """Return whether a TCP connection to a local ``port`` is open on this host.

    Idle keep-alive connections count too; the proxy holds them for a few seconds only.
    """
    return _has_sockets(port, _ESTABLISHED, if_unknown=False)


def _binds(port: int, host: str, *options: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        for option in options:
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError, ValueError):
            # TypeError and ValueError: a host that is no address, such as a text with a blank.
            return False
    return True


def _has_sockets(port: int, state: str, *, if_unknown: bool) -> bool:
    """Return whether the kernel has a TCP socket in ``state`` at a local ``port``."""
    local = f":{port:04X}"
    is_known = False
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:  # no IPv6, or no Linux
            continue
        is_known = True
        for line in lines:
            fields = line.split()
            if fields[1].endswith(local) and fields[3] == state:
                return True
    return if_unknown and not is_known
