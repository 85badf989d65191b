"""How does a web process speak HTTP/1.1 with its clients? uvicorn's protocol, with limits of ours.

uvicorn waits for the rest of a request for as long as the client likes, lets its head grow without
end, and loses the body of a request that offers an upgrade it doesn't know.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llamactl.server.web.disconnect_watch import Watched
from llamactl.server.web.http_1_0 import Http10Cycle

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers; llama.cpp itself takes 8 KiB of each header."""

DEAF_SECONDS = 0.1
"""How long an application may take to ask for what it is to be told."""

_OTHER_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:(?![ \t]*websocket[ \t]*\r\n)[^\r\n]*", re.I)


class Phase(Enum):
    """What of a request has been received."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class HttpProtocol(HttpToolsProtocol):
    """One client's connection."""

    head_seconds = 30.0
    """From the first byte of a request (or from connecting) until its last header."""
    body_seconds = 30.0
    """Between two pieces of a request's body; while it is we who don't read, the clock stands."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, Watched(transport, self.loop)))
        self._phase = Phase.HEAD
        self._head_bytes = 0
        self._body_came = False
        self._earlier: list[RequestResponseCycle] = []
        """Requests whose answer is not complete while a later one has come."""
        self._running: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
        """The request that an application is at, or was last."""
        self._read_at = self.loop.time()
        self._answered_at = self._read_at
        self._idle_timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._arm(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        # uvicorn tells the request that came last alone, and not the ones before it in the line.
        for cycle in self._earlier:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        if self._running is not None and not self._running[0].response_complete:
            self.loop.call_later(DEAF_SECONDS, self._end_deaf, *self._running)

    def _end_deaf(self, cycle: RequestResponseCycle, task: asyncio.Task[None]) -> None:
        """Cancel an application that is stuck with a part of a body, after its client has left.

        It does not ask for the next part, and so is not told that there is none. One that has had
        the whole body is left alone: it was told, and may be clearing up, or asks later.
        """
        is_deaf = cycle.message_event.is_set() and (cycle.more_body or cycle.body)
        if is_deaf and not task.done():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._phase is not Phase.BODY:
            if len(data) > MAX_HEAD_BYTES and data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) < 0:
                self._refuse_large_head()
                return
            if b"pgrade" in data:
                data = _without_other_upgrades(data)
        # Of a chunk with the end of one part and the beginning of the next nothing counts.
        began_in, self._body_came = self._phase, False
        super().data_received(data)
        if self._phase is Phase.IDLE:
            if self._deadline is not None:
                self._disarm()
        elif not self.transport.is_closing():
            is_counted = began_in is self._phase and not self._body_came
            self._count_incomplete(len(data) if is_counted else 0)

    def _count_incomplete(self, size: int) -> None:
        """A request is there in part: bound how long it may take, and how large its head grows."""
        self._read_at = self.loop.time()
        # In the body that is trailers: the parser keeps the one that it is reading.
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_large_head()
            return
        if self._deadline is None:
            self._arm(self.head_seconds if self._phase is Phase.HEAD else self.body_seconds)

    def handle_websocket_upgrade(self) -> None:
        self._phase = Phase.IDLE
        self._disarm()
        super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # As uvicorn does it, which makes a timer for each answer and cancels it at each request.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._answered_at = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_idle)

    def _end_idle(self) -> None:
        left: float = self.timeout_keep_alive
        if self._phase is Phase.IDLE and self.cycle.response_complete:
            left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._end_idle)
        else:
            self._idle_timer = None
            self.timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # As uvicorn does it, which keeps nothing that could be cancelled.
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._running = (cycle, task)

    # -- the parser's callbacks -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._phase = Phase.HEAD
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and not self._should_upgrade() and self._has_body():
            # The head came in parts, or behind another request: the offer is still in it. What
            # follows would be read as the next request.
            raise ValueError("a body behind an offer of another protocol")
        # The body has time of its own.
        self._disarm()
        before = self.cycle
        super().on_headers_complete()
        if self.scope["http_version"] < "1.1" and self.cycle is not before:
            Http10Cycle.take_over(self.cycle)
        self._phase = Phase.BODY
        self._head_bytes = 0
        if not self.parser.should_upgrade():
            # What the parser finds after a body in chunks are trailers, and no headers: whoever
            # stands before us has not looked at them.
            self.headers = []
        if before is not None and not before.response_complete:
            self._earlier = [
                *(cycle for cycle in self._earlier if not cycle.response_complete),
                before,
            ]

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.IDLE
        super().on_message_complete()

    def _has_body(self) -> bool:
        """Whether the head that was just read announces one."""
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.headers
        )

    # -- what takes too long, or is too large ----------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._phase is Phase.HEAD and is_answering:
            # The head of a pipelined request may take as long as the answer before it.
            self._arm(self.head_seconds)
        elif self._phase is Phase.BODY and (left := self._body_seconds_left()) > 0:
            self._arm(left)
        elif self._head_bytes or self._phase is Phase.BODY:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the rest of the request did not come in time")
        else:
            self.transport.close()  # connected, and never said a word

    def _body_seconds_left(self) -> float:
        if self.flow.read_paused:
            return self.body_seconds
        return self._read_at + self.body_seconds - self.loop.time()

    def _refuse_large_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request line and the headers must have at most {MAX_HEAD_BYTES} bytes",
        )

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser refuses a request."""
        self._refuse(HTTPStatus.BAD_REQUEST, "this is no valid HTTP/1.1 request")

    def _refuse(self, status: HTTPStatus, details: str) -> None:
        """Answer, unless an answer has begun, and close."""
        logger.info("%d to %s: %s", status, self.client and self.client[0], details)
        self._disarm()
        cycle = self.cycle
        if self._phase is Phase.BODY and cycle.response_complete:
            pass  # this request has had its answer, before it was whole
        elif cycle is None or cycle.response_complete or not cycle.response_started:
            body = json.dumps({"error": "invalid_request", "details": details}).encode()
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _without_other_upgrades(data: bytes) -> bytes:
    """The request without an ``Upgrade`` to anything but WebSocket, which a server may ignore.

    The parser takes what follows such a head for another protocol, so that the request would lose
    its body; Java's client and ``curl --http2`` offer ``h2c`` with each request.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return data
    head: Any = data[: end + 2]
    return _OTHER_UPGRADE.sub(b"", head) + data[end + 2 :]
