"""Accept loop of a listening socket, with several accepts in one turn of the event loop.

libuv accepts one connection of a listening socket per turn. A turn of a busy web process handles
requests of many clients and takes milliseconds, so the last of 256 simultaneous connections would
be accepted after a second.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

MAX_ACCEPTS_PER_TURN = 16
"""Bounds how long established connections wait for a turn of their own."""

PAUSE_SECONDS = 0.5
"""Pause after a failed accept (too many open files, for example): an immediate retry would fail in
the same way."""


class Acceptor:
    """Accepts the connections of one listening socket; has the methods of ``asyncio.Server`` that
    uvicorn calls."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], *, max_accepts: int
    ) -> None:
        """Start accepting; to be called on the event loop. ``max_accepts`` is for one turn."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol = protocol
        self._max_accepts = max_accepts
        self._pause: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stop accepting; established connections stay."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_connected(self) -> None:
        """Return once each accepted connection has its protocol, and is known to the server."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    async def wait_closed(self) -> None:
        """Return at once: uvicorn itself waits for its connections."""

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(self._max_accepts):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return  # the queue is empty, or another web process was faster
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause_accepting(error)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._connect(client))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _pause_accepting(self, error: OSError) -> None:
        is_own_limit = error.errno == errno.EMFILE
        hint = "; allow this process more open files (ulimit -n)" if is_own_limit else ""
        logger.error("accepting no connections for %s s: %s%s", PAUSE_SECONDS, error, hint)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._listen)

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client)
        except OSError as error:
            client.close()
            logger.info("a client disconnected while its connection was accepted: %s", error)
