"""One web process on listening sockets that it inherits: ``python -m llamactl.server.web FD…``.

uvicorn's own ``--fd`` takes every descriptor for a Unix socket; on a TCP one that loses the
client's address and leaves Nagle's algorithm on, which holds streamed tokens back.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import sys
from functools import partial
from typing import cast

import uvicorn

from llamactl.config import current
from llamactl.core.asgi_types import Application
from llamactl.core.shutdown_flag import begin_shutdown
from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from llamactl.server.web.acceptor import MOST_IN_A_TURN, Acceptor
from llamactl.server.web.http import HttpProtocol
from llamactl.server.web.websocket import WebSocketProtocol

GRACE_SECONDS = 10
"""How long requests in flight may go on once we are told to stop."""

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s after which load balancers in front usually close idle connections."""

LAST_REQUEST_SECONDS = 0.1
"""How long those who were let in last may take to say what they want, before the stop counts them:
who asks nothing is cut off then, and who asks is answered."""

PING_SECONDS = 20
"""Often enough that a quiet WebSocket is no idle connection to whatever is in between."""


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """uvicorn calls two things errors that are none.

    A request that is cancelled, at the end of the grace or because its client has left, with a
    traceback, and a WebSocket that was refused with a status instead of being closed.
    """
    if record.msg == "ASGI callable returned without completing handshake.":
        return False
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


class Server(uvicorn.Server):
    """uvicorn's, with a door of ours; and it tells what never ends by itself that it is time to."""

    def __init__(self, config: uvicorn.Config, *, most_in_a_turn: int = MOST_IN_A_TURN) -> None:
        """``most_in_a_turn``: how many clients are let in in a turn of the event loop."""
        super().__init__(config)
        self._most_in_a_turn = most_in_a_turn
        self._doors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # its own door takes one in a turn
        protocol = partial(
            HttpProtocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        most = self._most_in_a_turn
        self._doors = [Acceptor(each, protocol, most=most) for each in sockets or ()]
        self.servers = cast(list[asyncio.Server], self._doors)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        from instances.backends.run_program import (
            end_running_programs,  # needs Django, which is up now
        )

        begin_shutdown()
        end_running_programs()
        for door in self._doors:
            door.close()
        # uvicorn tells the connections that there are of the stop, and waits for all that come.
        for door in self._doors:
            await door.all_in()
        await asyncio.sleep(LAST_REQUEST_SECONDS)
        await super().shutdown(sockets)


def configuration(application: Application | str) -> uvicorn.Config:
    """How uvicorn is to serve the application, and what it is to log."""
    logging.getLogger("uvicorn.error").addFilter(is_worth_a_line)
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=HttpProtocol,
        # Made of the one that stops reading while the application does not take the last message,
        # and that is not deprecated; ``ws_max_queue`` is for uvicorn's others.
        ws=WebSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=PING_SECONDS,
        # A pong waits behind the messages that we don't read as long as a backend does not, and a
        # ping behind those that a slow client does not: nobody is to be dropped for that. A peer
        # that is really gone is noticed by TCP, which never gets the ping acknowledged.
        ws_ping_timeout=None,
        # Tokens are too short to gain from it, and a compressed message may hide hundreds.
        ws_per_message_deflate=False,
        lifespan="auto",
        # Django's settings set up logging; uvicorn's own lines would only repeat ours.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # The ASGI application looks at X-Forwarded-* where it is needed.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def allow_many_connections() -> None:
    """Open as many files as we may: a stream needs two, and shells allow 1,024 at first.

    Here and not in the parent, because backends would inherit it, and some still use select().
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(descriptors: list[str]) -> None:
    allow_many_connections()
    config = configuration("llamactl.asgi:application")
    # Of several processes the first to wake would else take all of a few clients.
    most = max(1, MOST_IN_A_TURN // current().server.web_processes)
    Server(config, most_in_a_turn=most).run([socket.socket(fileno=int(fd)) for fd in descriptors])


if __name__ == "__main__":
    main(sys.argv[1:])
