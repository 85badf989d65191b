"""uvicorn server of one web process, shared by ``manage.py run`` and the gunicorn worker."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from copy import copy
from functools import partial
from typing import Any, cast

import uvicorn

from instances.backends.run_program import end_running_programs
from llamactl.core.asgi_types import Application
from llamactl.core.backend_ui import announce_port
from llamactl.core.links import backend_ui_prefix
from llamactl.core.parent_heartbeat import ParentHeartbeat
from llamactl.core.shutdown_flag import begin_shutdown
from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from llamactl.middleware.backend_ui_only import BackendUiOnly
from llamactl.middleware.public_prefix import PrefixRemoval, can_remove
from llamactl.server.web.acceptor import MAX_ACCEPTS_PER_TURN, Acceptor
from llamactl.server.web.connection_limits import ConnectionLimits
from llamactl.server.web.http import DRAIN_SECONDS, HttpProtocol
from llamactl.server.web.websocket import WebSocketProtocol

GRACE_SECONDS = 10
"""Grace period: how long requests in flight may go on after SIGTERM."""

KEEP_ALIVE_SECONDS = 75
"""Idle timeout of a connection. Load balancers usually close idle connections after 60 s, and the
side in front has to be first."""

PING_SECONDS = 20
"""Interval of WebSocket pings: often enough that no middlebox sees an idle connection."""

TICKS_OF_A_HEARTBEAT = 10
"""A second: uvicorn ticks every 0.1 s, and first once it accepts connections."""

CONNECTION_CLOSE = (b"connection", b"close")

UVICORN_OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "http": HttpProtocol,
    # Subclass of uvicorn's only implementation that is not deprecated and that pauses reading while
    # the application takes no message; ``ws_max_queue`` is an option of the other ones.
    "ws": WebSocketProtocol,
    "ws_max_size": MAX_MESSAGE_BYTES,
    "ws_ping_interval": PING_SECONDS,
    # A pong waits behind messages that we don't read while a backend is slow, and a ping waits
    # behind messages that a slow client doesn't read: neither may cost the connection. A dead peer
    # is detected by TCP, which never gets the ping acknowledged.
    "ws_ping_timeout": None,
    # Tokens are too short to gain from compression, and a compressed message may hide hundreds.
    "ws_per_message_deflate": False,
    "lifespan": "auto",
    # Django's settings configure logging; uvicorn's own lines would repeat ours.
    "log_config": None,
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    # The ASGI application reads X-Forwarded-* where it is needed.
    "proxy_headers": False,
    "timeout_keep_alive": KEEP_ALIVE_SECONDS,
    "timeout_graceful_shutdown": GRACE_SECONDS,
}


class Server(uvicorn.Server):
    """uvicorn's server with an accept loop of ours and a shutdown that drains connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        processes: int = 1,
        ui_port: int = 0,
        drain_seconds: float = DRAIN_SECONDS,
        heartbeat: ParentHeartbeat | None = None,
    ) -> None:
        """``processes`` is the number of web processes that share the listening sockets.

        A socket on ``ui_port`` serves the backends' own pages alone.
        """
        super().__init__(config)
        self._heartbeat = heartbeat or ParentHeartbeat(None)
        # The first of several processes to wake would otherwise accept all of a few connections.
        self._max_accepts = max(1, MAX_ACCEPTS_PER_TURN // processes)
        self._ui_port = ui_port
        self._drain_seconds = drain_seconds
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # uvicorn's accept loop takes one connection in a turn
        protocol = partial(
            HttpProtocol,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            drain_seconds=self._drain_seconds,
            limits=ConnectionLimits(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        )
        own = partial(protocol, config=self.config)
        of_backends = partial(protocol, config=self._backend_ui_config())
        self._acceptors = []
        for each in sockets or ():
            is_own = not self._ui_port or each.getsockname()[1] != self._ui_port
            if not is_own:
                announce_port(self.lifespan.state, self._ui_port)
            self._acceptors.append(
                Acceptor(each, own if is_own else of_backends, max_accepts=self._max_accepts)
            )
        self.servers = cast(list[asyncio.Server], self._acceptors)

    def _backend_ui_config(self) -> uvicorn.Config:
        """The configuration with the application of the backends' pages."""
        config = copy(self.config)
        application: Application = BackendUiOnly(self.config.loaded_app)
        prefix = backend_ui_prefix()
        if can_remove(prefix):
            application = PrefixRemoval(application, prefix)
        config.loaded_app = application
        return config

    async def on_tick(self, counter: int) -> bool:
        """Send a heartbeat, and keep the headers of all responses current, of waiting requests too.

        A request takes the list of the moment of its head, and uvicorn makes a new list at each
        tick: the ``Date`` of a response that waited 60 s for its backend would be 60 s behind.
        """
        if counter % TICKS_OF_A_HEARTBEAT == 0:
            self._heartbeat.beat()
        is_ending = await super().on_tick(counter)
        self._default_headers[:] = self.server_state.default_headers
        self.server_state.default_headers = self._default_headers
        return is_ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down without failing a request that a client has sent.

        1. End work without an end of its own (followed logs) and programs run for their output.
        2. Stop accepting, and wait for connections whose accept is under way.
        3. Drain: answer the requests of established connections, with ``Connection: close``.
        4. uvicorn shuts idle connections down and waits for requests in flight, for the grace
           period.
        """
        begin_shutdown()
        end_running_programs()
        # Each request from now on gets these headers, also one of a connection that is idle now.
        self.server_state.default_headers = [*self.server_state.default_headers, CONNECTION_CLOSE]
        for acceptor in self._acceptors:
            acceptor.close()
        for acceptor in self._acceptors:
            await acceptor.wait_connected()
        await asyncio.sleep(self._drain_seconds)
        await super().shutdown(sockets)


def uvicorn_config(application: Application | str) -> uvicorn.Config:
    """Make the configuration of a uvicorn server for this application."""
    filter_uvicorn_log()
    return uvicorn.Config(application, **UVICORN_OPTIONS)


def filter_uvicorn_log() -> None:
    """Drop the records of uvicorn's error log that report no error."""
    logging.getLogger("uvicorn.error").addFilter(is_error)


def is_error(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn's error log reports an error.

    uvicorn logs two events as errors that are none: a cancelled request, with a traceback (at the
    end of the grace period, or after a disconnect), and a WebSocket that was refused with an HTTP
    status instead of a close frame.
    """
    if record.msg == "ASGI callable returned without completing handshake.":
        return False
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def allow_many_connections() -> None:
    """Raise this process's limit of open files to the hard limit.

    A stream needs two descriptors, and shells allow 1,024 by default. The limit is raised here and
    not in the parent process, because backends would inherit it and some still use select().
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
