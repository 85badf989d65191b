"""Listening sockets of the web address, which the web processes inherit.

A port in use is therefore reported before any process starts, several web processes share one
address, and clients of a web process that is respawned wait in the socket's queue instead of being
refused.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamactl.config import ServerConfig

BACKLOG = 2048


class AddressUnusable(Exception):
    """The web address can't be listened on; the text gives the reason and the setting."""


def listen_for_web(
    server: ServerConfig, *, print_warning: Callable[[str], None]
) -> list[socket.socket]:
    """Listen on llamactl's port, and on that of the backends' pages. Raises AddressUnusable.

    The default port of the backends' pages may be missing: their pages are in a sandbox then.
    """
    listeners = listen(server.host, server.port)
    if not server.ui_port:
        return listeners
    try:
        setting = "LLAMACTL_BACKEND_UI_PORT or server.backend_ui_port"
        return listeners + listen(server.host, server.ui_port, setting)
    except AddressUnusable as error:
        if server.backend_ui_port is not None:
            close_all(listeners)
            raise
        print_warning(f"the backends' own pages have no port and work in part only: {error}")
        return listeners


def listen(
    host: str, port: int, setting: str = "LLAMACTL_PORT or server.port"
) -> list[socket.socket]:
    """Listen on each address of ``host`` (``localhost`` may have two). Raises AddressUnusable.

    ``setting`` is named in the error.
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
        raise AddressUnusable(_explain(error, host, port, setting)) from None
    return sockets


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close the sockets; a second close has no effect."""
    for listener in sockets:
        listener.close()


def close_descriptors(descriptors: Iterable[int]) -> None:
    """Close listening sockets by descriptor; a second close has no effect."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback address, out of reach of other machines."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_host(host: str) -> str:
    """Convert a listening address to a host for URLs, as reached from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only
    return f"[{reachable}]" if ":" in reachable else reachable


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Lingering connections of the last run must not block the port; a listener still does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] != "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _explain(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; set {setting}"
    if error.errno == errno.EACCES:
        return (
            f"port {port} on {host} needs privileges that this user lacks; set {setting} to one"
            " above 1023"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; set LLAMACTL_HOST or server.host"
    return f"can't listen on {host} port {port}: {os.strerror(error.errno or 0)}"
