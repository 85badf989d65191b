"""One web process on inherited listening sockets: ``python -m llamactl.server.web FD…``.

uvicorn's own ``--fd`` takes every descriptor for a Unix socket. On a TCP socket that loses the
client's address and leaves Nagle's algorithm on, which delays streamed tokens.
"""

from __future__ import annotations

import socket
import sys

from llamactl.config import current
from llamactl.core.parent_heartbeat import ParentHeartbeat
from llamactl.server.web.server import Server, allow_many_connections, uvicorn_config


def main(descriptors: list[str]) -> None:
    allow_many_connections()
    config = uvicorn_config("llamactl.asgi:application")
    heartbeat = ParentHeartbeat.of_environment()
    settings = current().server
    server = Server(
        config,
        processes=settings.web_processes,
        ui_port=settings.ui_port,
        heartbeat=heartbeat,
    )
    server.run([socket.socket(fileno=int(descriptor)) for descriptor in descriptors])


if __name__ == "__main__":
    main(sys.argv[1:])
