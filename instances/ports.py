"""Which port does an instance get, and what does the kernel know of it?"""

from __future__ import annotations

import socket
from collections.abc import Container
from pathlib import Path

from instances.errors import PortOutOfRange, PortUnavailable
from llamactl.config import AppConfig

# Of the fourth column of /proc/net/tcp.
_ESTABLISHED = "01"
_LISTEN = "0A"


def choose_port(wanted: int | None, taken: Container[int], config: AppConfig) -> int:
    """The wanted port, or else the lowest free one of ``instances.port_range``.

    ``taken`` holds the ports of the node's other instances; llamactl's own port is never given.
    Call it in the transaction that saves the port: the unique constraint decides a race.

    Raises PortOutOfRange (400) or PortUnavailable (409).
    """
    low, high = config.instances.port_range
    own = config.server.port
    if wanted is not None:
        if not low <= wanted <= high:
            raise PortOutOfRange(
                f"port {wanted} is out of range [{low}-{high}]; leave port out to get a free one,"
                " or widen instances.port_range"
            )
        if wanted == own:
            raise PortUnavailable(f"port {wanted} is already in use: it is llamactl's own port")
        if wanted in taken:
            raise PortUnavailable(
                f"port {wanted} is already in use: another instance has it; leave port out to get"
                " a free one"
            )
        return wanted
    for port in range(low, high + 1):
        if port != own and port not in taken:
            return port
    raise PortUnavailable(
        f"failed to allocate port: no available ports in range [{low}-{high}]; delete an instance"
        " or widen instances.port_range"
    )


def is_bindable(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nothing listens there; only valid on the node, and a hint at that.

    What is left of the connections of a server that has ended is nothing: on Linux SO_REUSEADDR
    looks past it, and not past a listener. Servers that share their port (llama-server did until
    2026) leave what only the other option looks past; that one looks past such a listener too.
    """
    if _binds(port, host, socket.SO_REUSEADDR):
        return True
    shared = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    return _binds(port, host, *shared) and not _has_sockets(port, _LISTEN, if_unknown=True)


def has_connections(port: int) -> bool:
    """Whether a TCP connection to a local ``port`` is open on this host.

    Idle kept-alive ones count too; the proxy keeps those for a few seconds only.
    """
    return _has_sockets(port, _ESTABLISHED, if_unknown=False)


def _binds(port: int, host: str, *options: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        for option in options:
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError, ValueError):
            # The last two: a host that is no address, such as one with a blank in it.
            return False
    return True


def _has_sockets(port: int, state: str, *, if_unknown: bool) -> bool:
    """Whether the kernel has a TCP socket of that state at a local ``port``."""
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
