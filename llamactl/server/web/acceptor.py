"""Who is let in, and how many in one turn of the event loop?

libuv takes one connection from a listening socket in a turn. A turn of a busy web process has
requests of many clients and takes milliseconds, so that of 256 who come at once the last would be
let in after a second.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

MOST_IN_A_TURN = 16
"""Those who are in already are served in between."""
PAUSE_SECONDS = 0.5
"""After one who could not be let in: asked at once again, the system would say the same."""


class Acceptor:
    """Lets clients in at one listening socket; has what uvicorn asks of a server."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], *, most: int
    ) -> None:
        """``most``: in one turn. Call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol = protocol
        self._most = most
        self._pause: asyncio.TimerHandle | None = None
        self._entering: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Let nobody in any more; who is in stays."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def all_in(self) -> None:
        """Return once everybody who was let in is one of the server's connections."""
        if self._entering:
            await asyncio.wait(self._entering)

    async def wait_closed(self) -> None:
        """Nothing is left: uvicorn itself waits for its connections."""

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._let_in)

    def _let_in(self) -> None:
        for _ in range(self._most):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return  # no more, or another web process was faster
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._rest(error)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._enter(client))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    def _rest(self, error: OSError) -> None:
        is_ours = error.errno == errno.EMFILE
        hint = "; allow this process more open files (ulimit -n)" if is_ours else ""
        logger.error("clients wait for %s s to be let in: %s%s", PAUSE_SECONDS, error, hint)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._listen)

    async def _enter(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client)
        except OSError as error:
            client.close()
            logger.info("a client left while it was let in: %s", error)
