"""Limits on open connections: of a web process, and of one client address.

A keyless client must not take all file descriptors. A stream needs two descriptors, one for the
client and one for the backend, so half of the descriptors are kept for backends. When a limit is
reached, the oldest connection that waits for its client is closed: an idle connection, or a keyless
one with an incomplete request or a response that is read slowly. All other connections with a
response under way stay.
"""

from __future__ import annotations

from collections.abc import Callable

RESERVED_FILES = 128
"""Files of the process itself: listening sockets, databases, logs, the broker."""

MAX_LOOKS = 64
"""How many connections are examined to find one to close; keeps each accept short."""

Connections = dict[object, "Callable[[], bool]"]


class ConnectionLimits:
    """The open connections of a web process, the oldest first."""

    def __init__(self, max_files: int) -> None:
        """``max_files``: the process's limit of open files."""
        self.max_connections = max(1, (max_files - RESERVED_FILES) // 2)
        # A reverse proxy, or an office behind one address, may have most of the connections.
        self.max_per_address = max(1, self.max_connections * 3 // 4)
        self._all: Connections = {}
        self._by_address: dict[str, Connections] = {}
        self._addresses: dict[object, str] = {}

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: object, address: str, close_waiting: Callable[[], bool]) -> bool:
        """Count a new connection; return False if it must be refused.

        ``close_waiting`` closes the connection if it waits for a request, and returns whether it
        did.
        """
        of_address = self._by_address.setdefault(address, {})
        is_admitted = (len(of_address) < self.max_per_address or self._make_room(of_address)) and (
            len(self._all) < self.max_connections or self._make_room(self._all)
        )
        if is_admitted:
            self._all[connection] = of_address[connection] = close_waiting
            self._addresses[connection] = address
            # Making room may have closed the address's last connection.
            self._by_address[address] = of_address
        elif not of_address:
            self._by_address.pop(address, None)
        return is_admitted

    def keep(self, connection: object) -> None:
        """Never close this connection to make room."""
        address = self._addresses.get(connection)
        if address is not None:
            self._all[connection] = self._by_address[address][connection] = _is_kept

    def remove(self, connection: object) -> None:
        """Forget a closed connection."""
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        del self._all[connection]
        of_address = self._by_address[address]
        del of_address[connection]
        if not of_address:
            del self._by_address[address]

    def _make_room(self, connections: Connections) -> bool:
        for _ in range(min(MAX_LOOKS, len(connections))):
            connection = next(iter(connections))
            if connections[connection]():
                self.remove(connection)
                return True
            # Busy: examined again when all the others have been.
            connections[connection] = connections.pop(connection)
        return False


def _is_kept() -> bool:
    return False
