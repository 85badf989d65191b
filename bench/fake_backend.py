#!/usr/bin/env python3
"""A fast stand-in for an OpenAI-compatible backend, so that what is measured is the proxy.

It needs nothing but Python (uvloop is used when it is there) and imports nothing of ours, so it
runs by its path: alone (``--port``), or owned by a llamactl instance, whose llama-server flags it
accepts and, but for host, port and alias, ignores. It answers ``GET /health``,
``GET /v1/models``, ``GET /streams`` and ``POST /v1/chat/completions``; the last reads from the JSON
body:

``stream``          true: server-sent events, then ``[DONE]``; else one JSON document
``max_tokens``      how many token events a stream has (default 100)
``tps``             token events per second of a stream (default ``--tps``); 0 = no pauses
``response_bytes``  length of the JSON document in bytes (default 400, at least the bare document)

A body of more than 16 KiB is not parsed, since that would be what is measured: it is received
whole and gets the default document.

With ``--load-seconds`` it answers 503 on ``/health`` for so long, like a llama-server that loads
its model.

Event k is due at ``arrival of the request + k / tps`` seconds: the clients rely on this schedule
to tell how late an event reached them.

``GET /streams`` tells how many streams are ``open``, and in ``left_at`` when clients left theirs
before the end: seconds of CLOCK_MONOTONIC, which all processes of a machine share. That list begins
anew with the first stream after a moment without any.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import resource
import signal
import time
from typing import Final, cast

MAX_HEAD_BYTES: Final = 65536
MAX_PARSED_BYTES: Final = 16384
DEFAULT_RESPONSE_BYTES: Final = 400
DEFAULT_TOKENS: Final = 100
DEFAULT_TPS: Final = 100.0
JSON_TYPE: Final = b"application/json"
LENGTH_FIELD: Final = b"\r\ncontent-length:"


def http_response(status: bytes, body: bytes) -> bytes:
    """A whole HTTP/1.1 response with a JSON body; the connection stays open."""
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (status, JSON_TYPE, len(body)) + body


def http_chunk(payload: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
TOKEN: Final = http_chunk(
    b'data: {"id":"chatcmpl-fake","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"fake","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
STREAM_END: Final = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
LOADING: Final = http_response(
    b"503 Service Unavailable", b'{"error":{"code":503,"message":"Loading model"}}'
)
HEALTH: Final = http_response(b"200 OK", b'{"status":"ok"}')
NOT_FOUND: Final = http_response(b"404 Not Found", b'{"error":{"message":"no such path"}}')
BAD_REQUEST: Final = http_response(b"400 Bad Request", b'{"error":{"message":"bad request"}}')
LENGTH_REQUIRED: Final = http_response(
    b"411 Length Required", b'{"error":{"message":"send Content-Length"}}'
)


@functools.lru_cache(maxsize=64)
def completion(size: int) -> bytes:
    """The whole non-streaming response, its JSON body padded to `size` bytes."""
    document: dict[str, object] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ""},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
    }
    bare = json.dumps(document, separators=(",", ":")).encode()
    content = b"token " * (max(0, size - len(bare)) // 6 + 1)
    padding = content[: max(0, size - len(bare))]
    return http_response(b"200 OK", bare.replace(b'"content":""', b'"content":"%b"' % padding, 1))


@functools.lru_cache(maxsize=4)
def models(alias: str) -> bytes:
    """The response to ``GET /v1/models``."""
    entry = {"id": alias, "object": "model", "created": 1700000000, "owned_by": "fake"}
    return http_response(b"200 OK", json.dumps({"object": "list", "data": [entry]}).encode())


class Streams:
    """The streams of all connections: how many are open, and when clients left theirs."""

    def __init__(self) -> None:
        self.open = 0
        self.left_at: list[float] = []

    def begin(self) -> None:
        """One more is open."""
        if self.open == 0:
            self.left_at.clear()
        self.open += 1

    def end(self) -> None:
        """One has come to its end."""
        self.open -= 1

    def leave(self) -> None:
        """The client of one is gone."""
        self.open -= 1
        self.left_at.append(time.monotonic())

    def response(self) -> bytes:
        """The response to ``GET /streams``."""
        document = {"open": self.open, "left_at": self.left_at}
        return http_response(b"200 OK", json.dumps(document).encode())


class Connection(asyncio.Protocol):
    """One client connection: requests one after another, a stream's events by timer."""

    def __init__(self, *, alias: str, tps: float, loaded_at: float, streams: Streams) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams = streams
        self._alias = alias
        self._default_tps = tps
        self._loaded_at = loaded_at
        self._received = b""
        # The pieces of a large body, put together once: else each would copy all before it.
        self._pieces: list[bytes] = []
        self._missing = 0
        self._timer: asyncio.Handle | None = None
        self._is_streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        # At once, as nothing here pauses reading: not only when the next event is written.
        if self._timer is not None:
            self._timer.cancel()
        if self._is_streaming:
            self._is_streaming = False
            self._streams.leave()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._pieces.append(data)
            self._missing = max(0, self._missing - len(data))
            if self._missing:
                return
            self._received, self._pieces = b"".join(self._pieces), []
        else:
            self._received = self._received + data if self._received else data
        self._answer_what_is_complete()

    def _answer_what_is_complete(self) -> None:
        while self._received and not self._is_streaming:
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                if len(self._received) > MAX_HEAD_BYTES:
                    self._refuse(BAD_REQUEST)
                return
            head = self._received[:head_end]
            body_start = body_end = head_end + 4
            if not head.startswith(b"GET "):
                fields = head.lower()
                at = fields.find(LENGTH_FIELD)
                if at < 0:
                    self._refuse(LENGTH_REQUIRED)
                    return
                value = fields[at + len(LENGTH_FIELD) :].split(b"\r\n", 1)[0].strip()
                if not value.isdigit():
                    self._refuse(BAD_REQUEST)
                    return
                body_end += int(value)
                if len(self._received) < body_end:
                    self._missing = body_end - len(self._received)
                    self._pieces, self._received = [self._received], b""
                    return
            body = b"{}"
            if body_end - body_start <= MAX_PARSED_BYTES:
                body = self._received[body_start:body_end]
            self._received = self._received[body_end:]
            self._answer(head, body)

    def _refuse(self, response: bytes) -> None:
        """Answer and close: where the next request would begin is not known."""
        self._received = b""
        self._transport.write(response)
        self._transport.close()

    def _answer(self, head: bytes, body: bytes) -> None:
        target = head.split(b" ", 2)[1].split(b"?", 1)[0]
        if target == b"/v1/chat/completions":
            self._answer_chat(body)
        elif target == b"/health":
            self._transport.write(HEALTH if time.monotonic() >= self._loaded_at else LOADING)
        elif target == b"/v1/models":
            self._transport.write(models(self._alias))
        elif target == b"/streams":
            self._transport.write(self._streams.response())
        else:
            self._transport.write(NOT_FOUND)

    def _answer_chat(self, body: bytes) -> None:
        try:
            request = json.loads(body)
            is_stream = request.get("stream", False) is True
            tokens = max(0, int(request.get("max_tokens", DEFAULT_TOKENS)))
            tps = float(request.get("tps", self._default_tps))
            size = int(request.get("response_bytes", DEFAULT_RESPONSE_BYTES))
        except (ValueError, TypeError, AttributeError):
            self._transport.write(BAD_REQUEST)
            return
        if not is_stream:
            self._transport.write(completion(size))
            return
        self._is_streaming = True
        self._streams.begin()
        self._left = tokens
        self._interval = 1.0 / tps if tps > 0 else 0.0
        self._due = self._loop.time()
        self._transport.write(STREAM_HEAD)
        self._next_event()

    def _next_event(self) -> None:
        """Write the event that is due and set the timer for the one after it."""
        if self._left == 0:
            self._timer = None
            self._is_streaming = False
            self._streams.end()
            self._transport.write(STREAM_END)
            self._answer_what_is_complete()
            return
        # One write an event, also when late: a backend sends each token by itself.
        self._transport.write(TOKEN)
        self._left -= 1
        if self._left:
            self._due += self._interval
            self._timer = self._loop.call_at(self._due, self._next_event)
        else:
            self._timer = self._loop.call_soon(self._next_event)


async def serve(*, host: str, port: int, alias: str, tps: float, load_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    loaded_at = time.monotonic() + load_seconds
    streams = Streams()
    server = await loop.create_server(
        lambda: Connection(alias=alias, tps=tps, loaded_at=loaded_at, streams=streams),
        host,
        port,
        backlog=4096,
    )
    print(f"fake backend listens on {host}:{port}", flush=True)
    await stopped.wait()
    server.close()


def main() -> None:
    """Read the flags of llama-server that matter here, ignore the others, and serve."""
    parser = argparse.ArgumentParser(description="fake OpenAI backend", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default="fake")
    parser.add_argument("--tps", type=float, default=DEFAULT_TPS, help="token events per second")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="until it is healthy")
    options, _ignored = parser.parse_known_args()
    # A thousand streams are more than the usual soft limit of open files allows.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    serving = serve(
        host=options.host,
        port=options.port,
        alias=options.alias,
        tps=options.tps,
        load_seconds=options.load_seconds,
    )
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


if __name__ == "__main__":
    main()
