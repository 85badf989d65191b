"""Bounds on the time and size of a request, and the rejection of a request beyond them.

uvicorn waits without a timeout for the rest of a request, and sets no limit on the size of its
head.
"""

from __future__ import annotations

import asyncio
import logging

from llamactl.core.errors import LlamactlError
from llamactl.server.web.errors import (
    HeadTooLarge,
    MalformedRequest,
    RequestTimedOut,
    response_to,
)
from llamactl.server.web.head import MAX_HEAD_BYTES
from llamactl.server.web.parts import PartedProtocol, RequestPhase

logger = logging.getLogger(__name__)

MIN_BODY_RATE = 4 * 1024
"""Bytes per second of a slow line: a body that comes more slowly is ended after its timeout."""


class BoundedProtocol(PartedProtocol):
    """The part of ``HttpProtocol`` that bounds a request in receipt."""

    head_seconds = 30.0
    """Timeout from the first byte of a request (or from connecting) until its last header."""
    body_seconds = 30.0
    """Timeout between two pieces of a request's body; it does not run while reading is paused."""
    whole_body_seconds = 60.0
    """Timeout of a whole body, to which each second at MIN_BODY_RATE and each pause is added."""

    def _begin_bounds(self) -> None:
        """Begin the timeout of the first head, for a new connection."""
        self._refusal: LlamactlError | None = None
        """The error of the head that is being parsed, for the response."""
        self._body_bytes = 0
        self._body_due_at: float | None = None
        """When the body is due, without its bytes' share of the time; ``None`` as long as it has
        come in one piece with the head."""
        self._phase = RequestPhase.HEAD
        self._head_bytes = 0
        self._has_body_data = False
        self._read_at = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._arm(self.head_seconds)

    def _bound_incomplete_request(self, head_bytes: int) -> None:
        """Bound the time of a request that is received in part, and the size of its head."""
        self._read_at = now = self.loop.time()
        if self._body_due_at is None and self._phase is RequestPhase.BODY:
            self._body_due_at = now + self.whole_body_seconds - self._watched.paused_seconds
        # In the body phase these are the bytes of a trailer, which the parser buffers.
        self._head_bytes += head_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject_large_head()
            return
        if self._deadline is None:
            self._arm(self.head_seconds if self._phase is RequestPhase.HEAD else self.body_seconds)

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
        is_responding = self.cycle is not None and not self.cycle.response_complete
        if self._phase is RequestPhase.HEAD and is_responding:
            # The head of a pipelined request may take as long as the response before it.
            self._arm(self.head_seconds)
        elif self._phase is RequestPhase.BODY and (left := self._body_seconds_left()) > 0:
            self._arm(left)
        elif self._head_bytes or self._phase is RequestPhase.BODY:
            self._reject(RequestTimedOut())
        else:
            self.transport.close()  # no byte since the connection was made

    def _body_seconds_left(self) -> float:
        if self.flow.read_paused:
            return self.body_seconds
        due_at = self._read_at + self.body_seconds
        if self._body_due_at is not None:
            seconds_for_bytes = self._body_bytes / MIN_BODY_RATE
            whole_due_at = self._body_due_at + self._watched.paused_seconds + seconds_for_bytes
            due_at = min(due_at, whole_due_at)
        return due_at - self.loop.time()

    def _reject_large_head(self) -> None:
        self._reject(
            HeadTooLarge(
                f"the request line and the headers must have at most {MAX_HEAD_BYTES} bytes"
            )
        )

    def send_400_response(self, msg: str) -> None:
        """Reject a request that the parser could not parse; called by uvicorn."""
        self._reject(self._refusal or MalformedRequest())

    def _reject(self, error: LlamactlError) -> None:
        """Send an error response, unless a response has started, and close the connection."""
        logger.info(
            "rejected a request of %s with %d: %s",
            self.client and self.client[0],
            error.status,
            error.details,
        )
        self._disarm()
        cycle = self.cycle
        if self._phase is RequestPhase.BODY and cycle.response_complete:
            pass  # the application responded before the whole body was received
        elif cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(response_to(self._path(), error))
        self.transport.close()

    def _path(self) -> str:
        """The path of the request that is being received, for the shape of an error."""
        url: bytes = b"/" if self.scope is None else self.url
        return url.partition(b"?")[0].decode("latin-1")
