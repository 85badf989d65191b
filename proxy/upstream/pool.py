"""Pool of kept connections to one backend."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from proxy.errors import TooManyOpenFiles
from proxy.upstream.connection import Connection
from proxy.upstream.errors import Refused

KEEP_ALIVE_SECONDS = 4.0
"""cpp-httplib closes an idle connection after 5 s, so ours are closed after 4."""

CONNECT_SECONDS = 10.0
"""A running backend accepts a connection at once, however busy it is."""


class Pool:
    """The free connections to one origin; their number has no limit."""

    def __init__(self, origin: str, loop: asyncio.AbstractEventLoop) -> None:
        """``origin``: ``http://host:port``."""
        parts = urlsplit(origin)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.host = parts.netloc.encode()
        """The value of the Host header."""
        self._loop = loop
        self._free: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> Connection | None:
        """The free connection that was used last, or ``None``."""
        oldest = self._loop.time() - KEEP_ALIVE_SECONDS
        while self._free:
            connection = self._free.pop()
            if connection.is_free and connection.free_since >= oldest:
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        connection.free_since = self._loop.time()
        self._free.append(connection)

    async def connect(self, released: Callable[[Connection], None]) -> Connection:
        """A new connection; ``released`` is called with it after each response.

        Raises Refused, or TooManyOpenFiles (503).
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, released), self._host, self._port
                )
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise TooManyOpenFiles from error
            raise Refused(str(error) or f"no connection within {CONNECT_SECONDS:g} s") from error
        return connection

    def close_idle(self, before: float) -> None:
        """Close connections that have been free since before that event loop time."""
        while self._free and self._free[0].free_since < before:
            self._free.popleft().close()
