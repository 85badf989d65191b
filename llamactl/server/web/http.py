"""HTTP/1.1 protocol of the web process: uvicorn's, with bounds on a request's time and size.

uvicorn waits without a timeout for the rest of a request, sets no limit on the size of its head,
and loses the body of a request that offers an upgrade to an unknown protocol.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from llamactl.core.authorised import is_authorised
from llamactl.core.errors import LlamactlError
from llamactl.server.web.connection_limits import ConnectionLimits
from llamactl.server.web.disconnect_watch import WatchedTransport
from llamactl.server.web.errors import (
    MalformedRequest,
    TooManyConnections,
)
from llamactl.server.web.head import (
    MAX_HEAD_BYTES,
    check_handshake,
    check_head,
    has_body,
    without_other_upgrades,
)
from llamactl.server.web.http_1_0 import Http10Cycle
from llamactl.server.web.http_1_1 import Http11Cycle
from llamactl.server.web.parts import PART_BYTES, TRAILERS, RequestPhase
from llamactl.server.web.request_bounds import BoundedProtocol

logger = logging.getLogger(__name__)

DISCONNECT_GRACE_SECONDS = 0.1
"""Time for an application to receive the disconnect of its client before it is cancelled."""

DRAIN_SECONDS = 0.1
"""How long a connection may be idle during a shutdown. A client may just be sending a request on an
idle connection; the request is answered, with ``Connection: close``."""


class HttpProtocol(BoundedProtocol):
    """The connection of one client."""

    def __init__(
        self,
        *args: Any,
        drain_seconds: float = DRAIN_SECONDS,
        limits: ConnectionLimits | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._drain_seconds = drain_seconds
        self._limits = limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._watched = watched = WatchedTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, watched))
        self._begin_bounds()
        self._earlier: list[RequestResponseCycle] = []
        """Pipelined requests before the newest one, whose responses are not complete."""
        self._running: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
        """The request that the application handles now, or handled last."""
        self._responded_at = self.loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        if self._limits is not None:
            address = self.client[0] if self.client else ""
            if not self._limits.admit(watched, address, self._close_waiting):
                self._reject(TooManyConnections())

    def _close_waiting(self) -> bool:
        """Close the connection if it waits for a client without a key; return whether it did.

        Complete requests are answered soon, or belong to a key. The proxy checks the key before
        it reads the body, so a body that Django reads has shown no key yet. A client that reads
        its response slowly may never have shown one.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            waits_for_client = self._phase is RequestPhase.BODY or self.flow.write_paused
            if not waits_for_client or is_authorised(cycle.scope):
                return False
        self.transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._drop_held()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        # uvicorn reports the disconnect to the newest of several pipelined requests alone.
        for cycle in self._earlier:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        if self._limits is not None:
            self._limits.remove(self._watched)
        if self._running is not None and not self._running[0].response_complete:
            self.loop.call_later(
                DISCONNECT_GRACE_SECONDS, self._cancel_stuck_application, *self._running
            )

    def _cancel_stuck_application(
        self, cycle: RequestResponseCycle, task: asyncio.Task[None]
    ) -> None:
        """Cancel an application that has not received the whole body of a disconnected client.

        Such an application is busy with a part of the body and does not call ``receive``, so it
        never gets ``http.disconnect``. An application that has received the whole body is not
        cancelled: it got the disconnect and may be cleaning up, or will call ``receive`` later.
        """
        is_stuck = cycle.message_event.is_set() and (cycle.more_body or cycle.body)
        if is_stuck and not task.done():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._phase is not RequestPhase.BODY:
            if len(data) > MAX_HEAD_BYTES and data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) < 0:
                self._reject_large_head()
                return
            if b"pgrade" in data:
                data = without_other_upgrades(data)
        if len(data) <= PART_BYTES and not self.pipeline:
            self._parse(data)
        else:
            self._parse_in_parts(data)

    def _parse(self, data: bytes) -> None:
        # Data that spans two phases is not counted against the limit of either.
        phase_before, self._has_body_data = self._phase, False
        # As in uvicorn, except for its timer of an idle connection, which is not used here.
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        if self._phase is RequestPhase.IDLE:
            if self._deadline is not None:
                self._disarm()
        elif not self.transport.is_closing():
            is_counted = phase_before is self._phase and not self._has_body_data
            self._bound_incomplete_request(len(data) if is_counted else 0)

    def handle_websocket_upgrade(self) -> None:
        self._phase = RequestPhase.IDLE
        self._disarm()
        self._drop_held()
        super().handle_websocket_upgrade()
        protocol = self._watched.get_protocol()
        if not protocol.handshake_initiated:
            # The websockets package refuses what the HTTP parser took, without an answer.
            self._reject(MalformedRequest())
        elif self._limits is not None:
            self._limits.keep(self._watched)
            self._watched.on_lost = partial(self._limits.remove, self._watched)
        # As uvicorn does when a connection is lost: the parser and its callbacks are a cycle.
        self.parser = None  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            self._go_on()
            return
        # As in uvicorn, except for the idle timer: uvicorn makes one for each response and cancels
        # it at each request.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._responded_at = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_idle)

    def _close_idle(self) -> None:
        left: float = self.timeout_keep_alive
        if self._phase is RequestPhase.IDLE and self.cycle.response_complete:
            left = self._responded_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._close_idle)
        else:
            self._idle_timer = None
            self.timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watched.watch_writes()

    def shutdown(self) -> None:
        """Close the connection once it has been idle for ``drain_seconds``.

        uvicorn closes it at once, or right after a response whose head did not say so. Either fails
        a request that the client is just sending.
        """
        self.timeout_keep_alive = self._drain_seconds  # type: ignore[assignment] # uvicorn: int
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self.cycle is None:
            if not self._head_bytes:
                self.transport.close()
        elif self.cycle.response_complete:
            self._close_idle()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # As in uvicorn, which keeps no reference to the task for a later cancel.
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._running = (cycle, task)

    # -- the parser's callbacks -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._phase = RequestPhase.HEAD
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin the request, as uvicorn's method does with one fixed class of the cycle."""
        parser, version = self.parser, self.parser.get_http_version()
        method = parser.get_method().decode("ascii")
        offers_upgrade = parser.should_upgrade()
        try:
            check_head(self.url, self.headers, is_host_required=version != "1.0")
            is_handshake = offers_upgrade and self._is_handshake(method, version)
        except LlamactlError as error:
            self._refusal = error
            raise
        # The body has a timeout of its own.
        if self._deadline is not None:
            self._disarm()
        self._body_bytes = 0
        self._body_due_at = None
        scope = self.scope
        scope["method"] = method
        if version != "1.1":
            scope["http_version"] = version
        if not is_handshake:
            url = httptools.parse_url(self.url)
            scope["raw_path"] = raw_path = url.path
            path = raw_path.decode("ascii")
            scope["path"] = unquote(path) if "%" in path else path
            scope["query_string"] = url.query or b""
        self._phase = RequestPhase.BODY
        self._head_bytes = 0
        if not offers_upgrade:
            self.headers = TRAILERS
        if not is_handshake:
            self._begin_cycle(Http10Cycle if version < "1.1" else Http11Cycle)

    def _begin_cycle(self, kind: type[RequestResponseCycle]) -> None:
        """Start the application, or queue the request behind the one before it."""
        before = self.cycle
        self.cycle = kind(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
            return
        self.flow.pause_reading()
        self.pipeline.appendleft((self.cycle, self.app))
        self._earlier = [cycle for cycle in (*self._earlier, before) if not cycle.response_complete]

    def _is_handshake(self, method: str, version: str) -> bool:
        """Whether a head that offers an upgrade is a WebSocket's. Raises MalformedRequest."""
        if self._should_upgrade():
            check_handshake(method, version, self.headers)
            if self.cycle is not None and not self.cycle.response_complete:
                raise MalformedRequest("a WebSocket handshake must not be pipelined")
            return True
        if has_body(self.headers):
            # The head came in parts, or behind another request, so its offer was not removed. The
            # parser would read the body as the next request.
            raise MalformedRequest("a body behind an offer of another protocol")
        return False

    def on_body(self, body: bytes) -> None:
        self._has_body_data = True
        self._body_bytes += len(body)
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = RequestPhase.IDLE
        super().on_message_complete()
