"""Is the web address free, and ours? Its listening sockets are made here, once.

The web processes inherit them. So a port that is taken is known before anything starts, several
web processes share one address, and while a web process is started again its clients wait in the
queue of the socket instead of being refused.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable

BACKLOG = 2048


class AddressUnusable(Exception):
    """Nothing can listen there; the text says why, and what to set."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for each address of ``host`` (``localhost`` may have two).

    Raises AddressUnusable.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except (OSError, UnicodeError) as error:
        raise AddressUnusable(
            f"the host {host!r} has no address ({error}); set LLAMACTL_HOST or server.host"
        ) from None
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            sockets.append(_listen(family, address))
    except OSError as error:
        close_all(sockets)
        raise AddressUnusable(_explain(error, host, port)) from None
    return sockets


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close them; closing twice does no harm."""
    for listener in sockets:
        listener.close()


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach a server on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_host(host: str) -> str:
    """The name under which a server on ``host`` is reached from this machine, for a URL."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only
    return f"[{reachable}]" if ":" in reachable else reachable


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of the last run that linger must not hold the port; a listener still does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] != "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; set LLAMACTL_PORT or server.port"
    if error.errno == errno.EACCES:
        return (
            f"port {port} on {host} needs privileges that we don't have; set LLAMACTL_PORT or"
            " server.port to one above 1023"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; set LLAMACTL_HOST or server.host"
    return f"can't listen on {host} port {port}: {os.strerror(error.errno or 0)}"
