"""The HTTP/1.1 side of the fake backend: requests of one connection, and the answers to them.

``GET /health``, ``GET /v1/models``, ``GET /streams``, ``GET /fake/stats``; WebSocket messages are
echoed at ``/ws``; a form (``multipart/form-data``) is answered with its parts. Any other POST is a
chat completion, whose JSON body may say

``stream``          true: server-sent events, then ``[DONE]``; else one JSON document
``max_tokens``      how many tokens the answer has (3)
``tps``             tokens per second (a stream: ``--tps``; a document: at once); 0: without pauses
``response_bytes``  the least length of the JSON document (400; with a nonce 0)
``status``          answer with this HTTP status instead
``nonce``           a word that the log then has on a line of its own (``nonce WORD``), once for
                    each time that the request was carried out; the tokens are ``WORD:1`` and so on

Event k of a stream is due ``k / tps`` seconds after the request: the benchmark's clients rely on
this schedule to tell how late an event came. A body of more than 16 KiB gets the default document:
parsing would dominate the measurement.

With a key, all but ``/health``, ``/v1/models`` and ``/streams`` ask for it.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from tests.support.fake_backend import responses
from tests.support.fake_backend.knobs import Knobs

MAX_HEAD_BYTES: Final = 65536
MAX_PARSED_BYTES: Final = 16384
DEFAULT_RESPONSE_BYTES: Final = 400
DEFAULT_TOKENS: Final = 3
DEFAULT_TPS: Final = 100.0
LENGTH_FIELD: Final = b"\r\ncontent-length:"


class Cancellable(Protocol):
    """A scheduled call, of asyncio or of ours."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that a connection needs."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Cancellable: ...

    def call_soon(self, callback: Callable[[], None], /) -> Cancellable: ...


class Transport(Protocol):
    """The part of a transport that every answer needs, asyncio's or ours."""

    def write(self, data: bytes, /) -> None: ...

    def close(self) -> None: ...


class Backend:
    """The state that all connections share: settings, and counts since the start."""

    def __init__(
        self,
        knobs: Knobs | None = None,
        *,
        alias: str = "fake",
        api_key: str = "",
        tps: float = DEFAULT_TPS,
        load_seconds: float = 0.0,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.knobs = knobs or Knobs()
        self.alias = alias
        self.authorization = f": Bearer {api_key}\r\n".encode() if api_key else b""
        self.tps = tps
        self.log = log
        self._healthy_at = time.monotonic() + load_seconds
        self.connections = self.requests = self.in_flight = self.aborted = self.tokens = 0
        self.streams = 0
        self.disconnected_at: list[float] = []

    def is_open(self, path: bytes) -> bool:
        """Whether a path asks for no key."""
        if path == b"/v1/models":
            return "models_need_key" not in self.knobs
        return path in (b"/health", b"/streams") or (path == b"/" and "page" in self.knobs)

    def health(self) -> bytes:
        if "no_health" in self.knobs:
            return responses.NOT_FOUND
        is_late = time.monotonic() < self._healthy_at
        return responses.LOADING if is_late or "never_healthy" in self.knobs else responses.HEALTHY

    def begin_stream(self) -> None:
        """Count a stream; ``disconnected_at`` begins anew with the first after a moment of none."""
        if self.streams == 0:
            self.disconnected_at.clear()
        self.streams += 1

    def stats(self) -> bytes:
        """The response to ``GET /fake/stats``."""
        names = ("connections", "requests", "in_flight", "aborted", "tokens")
        document = {name: getattr(self, name) for name in names}
        return responses.http_response(200, json.dumps(document).encode())

    def open_streams(self) -> bytes:
        """The response to ``GET /streams``: open streams, and when clients disconnected theirs.

        Seconds of CLOCK_MONOTONIC, which all processes of a machine share.
        """
        document = {"open": self.streams, "disconnected_at": self.disconnected_at}
        return responses.http_response(200, json.dumps(document).encode())


class Chat:
    """One chat completion, as its JSON body asks for it."""

    __slots__ = ("is_stream", "model", "nonce", "size", "status", "tokens", "tps")

    def __init__(self, body: bytes, alias: str, stream_tps: float) -> None:
        """Raises ValueError, TypeError or AttributeError for a body that cannot be read."""
        request = json.loads(body)
        self.is_stream = request.get("stream", False) is True
        self.tokens = max(0, int(request.get("max_tokens", DEFAULT_TOKENS)))
        self.tps = float(request.get("tps", stream_tps if self.is_stream else 0))
        self.status = int(request.get("status", 200))
        self.nonce = str(request.get("nonce", ""))
        # Padding would hide whether the numbered tokens are complete.
        size = 0 if self.nonce else DEFAULT_RESPONSE_BYTES
        self.size = int(request.get("response_bytes", size))
        self.model = str(request.get("model", alias))

    def document(self) -> bytes:
        """The response that is not streamed."""
        pieces = [self.piece(number) for number in range(self.tokens)] if self.nonce else []
        return responses.completion(self.model, "".join(pieces), self.size)

    def piece(self, number: int) -> str:
        return f" {self.nonce}:{number + 1}" if self.nonce else responses.PIECE


# A benchmark sends the same body again and again: parsing it would be half of the work.
read_chat = functools.lru_cache(maxsize=64)(Chat)


class Connection:
    """Requests of one client, one after another; tokens are sent by timer.

    A subset of ``asyncio.Protocol``: asyncio can serve it as well as the program's own loop.
    """

    def __init__(self, backend: Backend, clock: Clock, transport: Transport | None = None) -> None:
        self._backend = backend
        self._clock = clock
        if transport is not None:
            self.connection_made(transport)
        self._received = b""
        # The pieces of a large body, put together once: else each would copy all before it.
        self._pieces: list[bytes] = []
        self._missing = 0
        self._timer: Cancellable | None = None
        self._chat: Chat | None = None
        self._sent = 0
        self._is_last = False

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._backend.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._chat is not None:
            self._backend.aborted += 1
            if self._chat.is_stream:
                self._backend.disconnected_at.append(time.monotonic())
            self._end_chat()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._pieces.append(data)
            self._missing = max(0, self._missing - len(data))
            if self._missing:
                return
            self._received, self._pieces = b"".join(self._pieces), []
        else:
            self._received = self._received + data if self._received else data
        if "hang" not in self._backend.knobs:
            self._answer_complete_requests()

    def _answer_complete_requests(self) -> None:
        while self._received and self._chat is None:
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                if len(self._received) > MAX_HEAD_BYTES:
                    self._refuse(responses.BAD_REQUEST)
                return
            head = self._received[: head_end + 2]
            fields = head.lower()
            body_start = body_end = head_end + 4
            at = fields.find(LENGTH_FIELD)
            if at >= 0:
                value = fields[at + len(LENGTH_FIELD) :].split(b"\r\n", 1)[0].strip()
                if not value.isdigit():
                    self._refuse(responses.BAD_REQUEST)
                    return
                body_end += int(value)
                if len(self._received) < body_end:
                    self._missing = body_end - len(self._received)
                    self._pieces, self._received = [self._received], b""
                    return
            elif b"\r\ntransfer-encoding:" in fields:
                self._refuse(responses.LENGTH_REQUIRED)
                return
            body = self._received[body_start:body_end]
            self._received = self._received[body_end:]
            self._answer(head, fields, body)

    def _refuse(self, response: bytes) -> None:
        """Answer and close: where the next request would begin is not known."""
        self._received = b""
        self._transport.write(response)
        self._transport.close()

    def _answer(self, head: bytes, fields: bytes, body: bytes) -> None:
        backend = self._backend
        backend.requests += 1
        method, target, _ = head.split(b" ", 2)
        path = target.split(b"?", 1)[0]
        has_key = not backend.authorization or backend.authorization in head
        if not (has_key or backend.is_open(path)):
            self._transport.write(responses.UNAUTHORIZED)
        elif method == b"GET":
            self._get(path, head, fields)
        elif method == b"HEAD":
            self._transport.write(responses.NOT_FOUND_HEAD)
        elif b"\r\ncontent-type: multipart/form-data" in fields:
            content_type = head[fields.find(b"\r\ncontent-type:") + 2 :].split(b"\r\n", 1)[0]
            self._transport.write(responses.transcription(content_type, body))
        else:
            self._begin_chat(body if len(body) <= MAX_PARSED_BYTES else b"{}")
        self._is_last = b"\r\nconnection: close\r\n" in fields
        if self._is_last and self._chat is None:
            self._transport.close()

    def _get(self, path: bytes, head: bytes, fields: bytes) -> None:
        backend = self._backend
        if path == b"/ws" and b"\r\nsec-websocket-key:" in fields:
            self._echo_messages(head + b"\r\n")
            return
        if path == b"/health":
            response = backend.health()
        elif path == b"/v1/models":
            response = responses.models(backend.alias)
        elif path == b"/fake/stats":
            response = backend.stats()
        elif path == b"/streams":
            response = backend.open_streams()
        elif path == b"/" and "page" in backend.knobs:
            response = responses.hostile_page(backend.knobs.text("page"))
        else:
            response = responses.NOT_FOUND
        self._transport.write(response)

    def _echo_messages(self, handshake: bytes) -> None:
        """Serve the rest of the connection in a thread of its own."""
        # Only here: the package of WebSockets takes longer to import than everything else.
        from tests.support.fake_backend.websocket_echo import echo

        connection = self._transport.detach()  # type: ignore[attr-defined]

        def serve() -> None:
            with connection:
                echo(connection, handshake)

        threading.Thread(target=serve, daemon=True).start()

    def _begin_chat(self, body: bytes) -> None:
        backend = self._backend
        try:
            chat = read_chat(body, backend.alias, backend.tps)
        except (ValueError, TypeError, AttributeError):
            self._transport.write(responses.BAD_REQUEST)
            return
        if chat.status != 200:
            self._transport.write(responses.error(chat.status, "as you like it"))
            return
        if chat.nonce:
            backend.log(f"nonce {chat.nonce}")
        if not chat.is_stream and not (chat.tps and chat.tokens):
            self._write_document(chat)
            return
        self._chat = chat
        backend.in_flight += 1
        self._due = self._clock.time()
        if chat.is_stream:
            backend.begin_stream()
            self._sent = 0
            self._transport.write(responses.STREAM_HEAD)
            self._next_token()
        else:
            self._timer = self._clock.call_at(
                self._due + chat.tokens / chat.tps, self._end_document
            )

    def _write_document(self, chat: Chat) -> None:
        self._backend.tokens += chat.tokens
        self._transport.write(chat.document())

    def _end_document(self) -> None:
        assert self._chat is not None
        self._write_document(self._chat)
        self._finish_chat()

    def _next_token(self) -> None:
        """Write the token that is due and set the timer for the next one."""
        chat = self._chat
        assert chat is not None
        if self._sent == chat.tokens:
            self._transport.write(responses.STREAM_END)
            self._finish_chat()
            return
        # One write a token, also when late: a backend sends each token by itself.
        self._transport.write(responses.token_event(chat.model, chat.piece(self._sent)))
        self._sent += 1
        self._backend.tokens += 1
        if self._sent < chat.tokens and chat.tps > 0:
            self._due += 1 / chat.tps
            self._timer = self._clock.call_at(self._due, self._next_token)
        else:
            self._timer = self._clock.call_soon(self._next_token)

    def _finish_chat(self) -> None:
        """Go on with the next request, or close the connection if the client asked for that."""
        self._end_chat()
        if self._is_last:
            self._transport.close()
        else:
            self._answer_complete_requests()

    def _end_chat(self) -> None:
        assert self._chat is not None
        self._backend.in_flight -= 1
        self._backend.streams -= self._chat.is_stream
        self._chat = self._timer = None
