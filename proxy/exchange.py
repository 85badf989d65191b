"""One exchange: a client's request, the times and bytes of its way, and its outcome.

The hot path fills an exchange; in-flight reports, ``Server-Timing`` and ``Gateway.observers`` read
it. Bytes are counted by the objects that carry them and copied only when asked for, because a
count for each chunk would be work for each chunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from time import perf_counter
from typing import Protocol

from llamactl.core.errors import LlamactlError
from llamactl.core.request_id import client_headers, id_headers, new_id
from proxy.observe.response_reader import ResponseReader
from proxy.observe.tokens import NO_TOKENS, Tokens
from proxy.routes.routes import Route
from proxy.table.table import KeyRule
from proxy.upstream import UpstreamResponse


class Outcome(Enum):
    """How an exchange ended."""

    PENDING = "pending"
    ANSWERED = "answered"
    """The client got the whole response, whatever its status, or the WebSocket was closed."""
    REFUSED = "refused"
    """llamactl refused the request with an error of its own; no backend is to blame."""
    CLIENT_DISCONNECTED = "client_disconnected"
    BACKEND_FAILED = "backend_failed"
    """The backend did not start, did not answer, or broke off its response."""
    FAILED = "failed"
    """llamactl failed on the request; its log has the traceback."""
    CANCELLED = "cancelled"
    """An operator cancelled the request, or the server did, because it stops."""


class ByteCounter(Protocol):
    """A body under way: an upload or a response."""

    @property
    def total_bytes(self) -> int:
        """The size of the body so far."""


class Early(Protocol):
    """A response that llamactl has begun before the backend; see ``proxy.early_response``."""

    @property
    def is_begun(self) -> bool:
        """Whether the client has the head."""

    @property
    def takes_events(self) -> bool:
        """Whether an error may follow as an event."""

    async def stop(self) -> None:
        """Return once nothing more is sent."""

    async def accept(self, response: UpstreamResponse, first_piece: bytes | None) -> None:
        """Return if the backend's body may follow. Raises BackendAnswered."""

    async def end_with(self, error: LlamactlError) -> None:
        """End the response with an error."""


class Exchange:
    """One request; for a WebSocket, the handshake and everything after it.

    Times are those of ``perf_counter``; ``None`` before their event, or where there is none.
    """

    rule: KeyRule | None = None
    """The rule of the request's key, once the key is known."""
    instance = ""
    """The instance's name, once the request is routed."""
    is_use = True
    """Whether the request keeps its instance from being idle."""
    status = 0
    """The HTTP status that the client got; 101 for an open WebSocket; 0 before any."""
    outcome = Outcome.PENDING

    is_waiting = False
    """Whether the request waits for its instance: for the start, or in the scheduler's queue."""
    queued_at: float | None = None
    """The request is routed and may wait for its instance."""
    loaded_at: float | None = None
    """The instance became ready; ``None`` where it was ready before."""
    loading_seconds = 0.0
    """The part of the wait in which the model was loaded."""
    sent_at: float | None = None
    """The backend was asked, the last time that it was."""
    first_byte_at: float | None = None
    """The head of the response came; of a POST that can be repeated, the body's first byte."""
    ended_at: float | None = None
    """The last byte to the client, or the moment of its disconnect."""

    bytes_to_backend = 0
    """The size of the request's body; of a WebSocket's messages."""
    bytes_to_client = 0
    """The size of the backend's body; current after ``count_bytes``."""
    early: Early | None = None
    """The early response of a request that waits for long."""
    upload: ByteCounter | None = None
    response: ByteCounter | None = None
    """The bodies under way, until the exchange has ended."""
    body: bytes | ResponseReader | None = None
    """The response to a POST, for its token counts: whole, or as it is read; until the end."""
    hides_usage = False
    """Whether the usage event of the stream was asked for by llamactl, and is taken out."""
    tokens: Tokens = NO_TOKENS
    """The token counts, once the exchange has ended."""
    reported_bytes = 0
    """``bytes_to_client`` at the last in-flight report."""

    # The defaults are the class's: to set fifteen for each request would take a microsecond.

    def __init__(self, route: Route | None, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """``route``: ``None`` for a WebSocket at an unknown path; ``headers``: the request's."""
        self.route = route
        self.received_at = perf_counter()
        """The head of the request has come."""
        self.id = new_id()
        self.client_id, self._is_anthropic = client_headers(headers)
        """The client's own ``X-Request-Id``; empty for an unusable one, ``None`` without one."""

    def id_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that tell the client the id of its request."""
        is_anthropic = self._is_anthropic or (
            self.route is not None and self.route.rest.startswith("/v1/messages")
        )
        return id_headers(self.id, is_anthropic=is_anthropic)

    def server_timing(self) -> bytes:
        """The value of the response header ``Server-Timing``, in milliseconds.

        ``queue`` is the wait for the instance and for a connection, without the loading; ``ttfb``
        the time to the first byte, from asking the backend.
        """
        loading, sent_at = self.loading_seconds, self.sent_at
        queue = first_byte = 0.0
        if sent_at is not None:
            if self.queued_at is not None:
                queue = sent_at - self.queued_at - loading
            if self.first_byte_at is not None:
                first_byte = self.first_byte_at - sent_at
        return b"queue;dur=%.1f, load;dur=%.1f, ttfb;dur=%.1f" % (
            queue * 1e3,
            loading * 1e3,
            first_byte * 1e3,
        )

    def log_fields(self) -> dict[str, str]:
        """The fields of a log line on this exchange; the formatter shows them."""
        return {
            "instance": self.instance,
            "request_id": self.id,
            "client_request_id": self.client_id or "",
        }

    def count_bytes(self) -> None:
        """Bring the byte counts up to date."""
        if self.upload is not None:
            self.bytes_to_backend = self.upload.total_bytes
        if self.response is not None:
            self.bytes_to_client = self.response.total_bytes

    def finish(self, outcome: Outcome) -> None:
        """Note the end of the exchange; the first outcome stays."""
        if self.outcome is Outcome.PENDING:
            self.outcome = outcome
            self.ended_at = perf_counter()
            if self.response is not None or self.upload is not None:
                self.count_bytes()
                # An observer may keep the exchange, and must not keep a body with it.
                self.upload = self.response = None
