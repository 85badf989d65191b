"""One web process on listening sockets that it inherits: ``python -m llamactl.run.web FD…``.

uvicorn's own ``--fd`` takes every descriptor for a Unix socket; on a TCP one that loses the
client's address and leaves Nagle's algorithm on, which holds streamed tokens back.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import uvicorn

from llamactl.leaving import leave

GRACE_SECONDS = 10
"""How long requests in flight may go on once we are told to stop."""

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s after which load balancers in front usually close idle connections."""


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """uvicorn shows a traceback for each request that it cancels itself at the end of the grace."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


class Server(uvicorn.Server):
    """Tells what never ends by itself that it is time to."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        leave()
        await super().shutdown(sockets)


def main(descriptors: list[str]) -> None:
    config = uvicorn.Config(
        "llamactl.asgi:application",
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        lifespan="auto",
        # Django's settings set up logging; uvicorn's own lines would only repeat ours.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    logging.getLogger("uvicorn.error").addFilter(is_worth_a_line)
    Server(config).run([socket.socket(fileno=int(fd)) for fd in descriptors])


if __name__ == "__main__":
    main(sys.argv[1:])
