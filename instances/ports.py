"""Which port an instance gets."""

from __future__ import annotations

import socket
from collections.abc import Container

from instances.errors import PortOutOfRange, PortUnavailable
from llamactl.config import AppConfig


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

    SO_REUSEADDR looks past connections in TIME_WAIT, and on Linux not past a listener.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError, ValueError):
            # The last two: a host that is no address, such as one with a blank in it.
            return False
    return True
