"""WebSockets at a real server, in the place of the parent folder's bytes."""

from __future__ import annotations

from tests.proxy.conftest import backend, sockets
from tests.proxy.websocket.conftest import client, nothing_logged, served

__all__ = ["backend", "client", "nothing_logged", "served", "sockets"]
