"""Early response: head and signs of life for a client that waits for its backend.

A client without a byte gives up: nginx after 60 s, Cloudflare after 100 s, Node's ``fetch`` after
300 s. An event stream may have comments anywhere, so a request for a stream gets its head after
``server.keepalive_after``, and a comment each ten seconds that says what it waits for. Clients of
Anthropic's API get the event ``ping`` of that API. Leading blanks are legal in JSON, but the status
of a document can't change after them; they are an option of the instance.

After this head an error is an event (or the document), and so is any other answer of the backend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from time import perf_counter, time
from typing import Protocol

from llamactl.core.asgi_types import Message, Send
from llamactl.core.backend_ui import SANDBOX, came_by_ui_port
from llamactl.core.error_format import PathFamily, body_for, event_for, family_of
from llamactl.core.errors import LlamactlError
from llamactl.core.headers import header
from llamactl.core.request_id import current_request
from llamactl.core.turns import Turns
from llamactl.middleware.response_headers import keep
from proxy.backend_answer import answered, read_answer
from proxy.body.stream_flag import asks_for_stream
from proxy.body.upload import Upload
from proxy.exchange import Exchange
from proxy.headers import to_client
from proxy.registry import LiveRequest, phase_of
from proxy.relay import for_events, is_event_stream
from proxy.routes.routes import Route, RouteKind
from proxy.table.live import LiveTable
from proxy.table.table import Target
from proxy.upstream import UpstreamResponse

logger = logging.getLogger(__name__)

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
BLANK = b"\n"
_STREAMING = frozenset({"completions", "completion", "responses", "messages", "infill"})
"""Operations whose ``stream`` means an event stream; with vLLM that of ``audio/speech`` means
sound, and that of ``embeddings`` nothing."""
_WITHOUT_JSON = ("/v1/audio/", "/v1/images/")
"""Paths whose answers may be no JSON."""


class Form(Enum):
    """The bytes that keep a connection alive."""

    COMMENTS = "comments"
    PINGS = "pings"
    BLANKS = "blanks"


class WaitingRequest(LiveRequest, Protocol):
    """A routed request, as an early response needs it."""

    @property
    def route(self) -> Route:
        """The request's route."""

    @property
    def target(self) -> Target:
        """The request's target, as it was last looked up."""

    @property
    def body(self) -> bytes | Upload:
        """The body for the backend."""

    @property
    def send(self) -> Send:
        """To the client."""


class EarlyResponse:
    """The beginning of one response, sent by a task of its own until ``stop``."""

    def __init__(
        self,
        request: WaitingRequest,
        live: LiveTable,
        turns: Turns,
        *,
        every_seconds: float,
        unix_now: Callable[[], float] = time,
    ) -> None:
        self.is_begun = False
        """Whether the client has the head."""
        self._request = request
        self._live = live
        self._turns = turns
        self._every_seconds = every_seconds
        self._unix_now = unix_now
        self._form = Form.COMMENTS
        self._is_over = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="early-response")

    async def stop(self) -> None:
        """Return once nothing more is sent; from then on the response is the caller's."""
        self._is_over.set()
        if not self.is_begun:
            self._task.cancel()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            # The client has disconnected while a comment waited for it.
            self._task.cancel()
            raise

    async def accept(self, response: UpstreamResponse, first_piece: bytes | None) -> None:
        """Return if the backend's body may follow. Raises BackendAnswered."""
        if header(response.headers, b"content-encoding") is None:
            if self._form is Form.BLANKS:
                kind = header(response.headers, b"content-type") or b""
                if kind.partition(b";")[0].strip().lower() == b"application/json":
                    return
            elif response.status == 200 and is_event_stream(response):
                return
        body = await read_answer(response, first_piece)
        raise answered(self._request.target.name, response, body, self._family())

    @property
    def takes_events(self) -> bool:
        """Whether an error of llamactl may follow as an event."""
        return self.is_begun and self._form is not Form.BLANKS

    async def end_with(self, error: LlamactlError) -> None:
        """End the response with an error."""
        if self._form is not Form.BLANKS:
            last = event_for(self._family(), error)
        elif self._request.exchange.response is None:
            last = body_for(self._family(), error)
        else:
            return  # in the middle of a document: the server cuts the connection
        await self._send_body(last, more_body=False)

    def _family(self) -> PathFamily:
        return family_of(self._request.route.rest)

    async def _run(self) -> None:
        request, exchange = self._request, self._request.exchange
        current_request.set(exchange)
        try:
            form = await form_of(request, self._turns)
            if form is None or exchange.status or self._is_over.is_set():
                return
            start = early_start(request, form)
            self._form, self.is_begun, exchange.status = form, True, 200
            await request.send(start)
            while not self._is_over.is_set():
                await self._send_body(self._sign_of_life(), more_body=True)
                try:
                    async with asyncio.timeout(self._every_seconds):
                        await self._is_over.wait()
                except TimeoutError:
                    pass
        except OSError as error:
            logger.debug("the client has disconnected: %s", error)
        except Exception:
            logger.exception("an early response failed")

    def _sign_of_life(self) -> bytes:
        if self._form is Form.PINGS:
            return PING
        if self._form is Form.BLANKS:
            return BLANK
        exchange = self._request.exchange
        target = self._live.table.targets.get(exchange.instance)
        return b": %b\n\n" % progress(
            exchange, target, now=perf_counter(), unix_now=self._unix_now()
        ).encode("ascii", "replace")

    async def _send_body(self, body: bytes, *, more_body: bool) -> None:
        await self._request.send(
            {"type": "http.response.body", "body": body, "more_body": more_body}
        )


async def form_of(request: WaitingRequest, turns: Turns) -> Form | None:
    """The form that keeps the connection of this request alive; ``None`` if none may.

    The instance proxy leaves the bytes of its requests alone, and an upload is no JSON.
    """
    route, body = request.route, request.body
    if route.kind not in (RouteKind.INFERENCE, RouteKind.LLAMA_CPP):
        return None
    if not isinstance(body, bytes) or request.scope["method"] != "POST":
        return None
    operation = route.rest.rpartition("/")[2]
    if operation in _STREAMING and await asks_for_stream(body, turns):
        is_anthropic = family_of(route.rest) is PathFamily.ANTHROPIC
        return Form.PINGS if is_anthropic else Form.COMMENTS
    if request.target.keepalive_blanks and not route.rest.startswith(_WITHOUT_JSON):
        return Form.BLANKS
    return None


def early_start(request: WaitingRequest, form: Form) -> Message:
    """Status and headers of a response that has no backend's yet."""
    exchange, configured = request.exchange, request.target.response_headers
    kind = b"application/json" if form is Form.BLANKS else b"text/event-stream"
    headers = to_client([(b"content-type", kind)], configured)
    # No Server-Timing: its times are not known yet.
    headers += exchange.id_headers()
    headers = for_events(headers, configured)
    if configured:
        keep(request.scope, configured)
    if not came_by_ui_port(request.scope):
        headers.append(SANDBOX)
    return {"type": "http.response.start", "status": 200, "headers": headers}


def progress(exchange: Exchange, target: Target | None, *, now: float, unix_now: float) -> str:
    """The reason of the wait: the place in the queue, or the time against the usual."""
    phase = phase_of(exchange, target)
    if phase == "queued":
        queue = None if target is None else target.queue
        return f"waiting (place {queue['place']} of {queue['length']})" if queue else "waiting"
    if phase == "loading" and target is not None and target.started_at is not None:
        # The clock of another node may be ahead.
        seconds = max(0.0, unix_now - target.started_at)
        usual = "" if target.load_seconds is None else f" of about {target.load_seconds:.0f}"
        return f"loading ({seconds:.0f}{usual} s)"
    if phase == "prefill" and exchange.sent_at is not None:
        return f"prefill ({now - exchange.sent_at:.0f} s)"
    return phase
