"""One HTTP/1.1 connection to a backend: one request at a time, and the answer to it.

httptools (llhttp) parses, strictly. A connection on which a backend says something without having
been asked, or beyond the end of its answer, is closed, so that it never answers another request;
but for what has arrived when the next one is written and is not read yet: nothing tells that from
an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from proxy.body.upload import Upload
from proxy.headers import Pairs
from proxy.upstream.errors import BackendError, BrokeOff, Stalled, Unanswered
from proxy.upstream.response import UpstreamResponse

MAX_HEAD_BYTES = 64 * 1024
"""Of all headers of an answer; and how much may come without a byte of a body in it."""
MAX_HEADERS = 128

TOGETHER_BYTES = 64 * 1024
"""A body up to this size is copied behind its head, so that both leave in one system call."""


class Connection(asyncio.Protocol):
    """``is_free`` once an answer was whole and the backend said nothing against another request."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, released: Callable[[Connection], None]
    ) -> None:
        """``released``: called when an answer was given back; the connection is free or closed."""
        self.loop = loop
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self.free_since = 0.0
        """When it was last given back, by the clock of the event loop."""
        self._is_asked = False
        """Whether an answer is due, or a part of one."""
        self._is_reusable = True
        self._method = ""
        self._head: asyncio.Future[UpstreamResponse] | None = None
        self._answer: UpstreamResponse | None = None
        self._headers: Pairs = []
        self._is_interim = False
        self._ends_with_connection = False
        self._barren_bytes = 0
        """What came since the last piece of a body, or since the request."""
        self._sender: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        """Pending while the backend takes no more of a request's body."""

    @property
    def is_free(self) -> bool:
        return self._is_reusable and not self._is_asked and self._transport is not None

    def close(self) -> None:
        """At once: so that a backend stops working on what nobody waits for."""
        self._is_reusable = self._is_asked = False
        head, self._head = self._head, None
        if head is not None:
            head.cancel()
        if self._sender is not None:
            self._sender.cancel()
        if self._transport is not None:
            self._transport.abort()

    # -- asking ----------------------------------------------------------------------------------

    async def ask(self, method: str, head: bytes, body: bytes) -> UpstreamResponse:
        """Send a request; returns when the head of its answer is there.

        Raises Unanswered where the connection was closed instead, and BackendError where what
        came is no HTTP/1.1. Cancelled, or with an error, it leaves the connection to be closed.
        """
        assert self._transport is not None  # noqa: S101 - none is asked that is not connected
        if len(body) <= TOGETHER_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return await self._expect(method)

    async def ask_with_upload(
        self, method: str, head: bytes, upload: Upload, *, first_byte: float, idle: float
    ) -> UpstreamResponse:
        """The same for a body that is still coming; it may still be when this returns.

        ``first_byte``: how long the answer may take after the last of the body; ``idle``: how
        long the backend may take nothing of it; seconds, 0: for ever. Also raises Stalled, and
        what the upload ends with.
        """
        waiter = self._expect(method)
        assert self._transport is not None  # noqa: S101 - none is asked that is not connected
        self._transport.write(head)
        self._sender = asyncio.create_task(self._send(upload, idle or None))
        try:
            await asyncio.wait((waiter, self._sender), return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(first_byte or None):
                return await waiter
        finally:
            del waiter  # what it raises holds this frame

    def _expect(self, method: str) -> asyncio.Future[UpstreamResponse]:
        self._is_asked = True
        self._method = method
        self._answer = None
        self._headers = []
        self._barren_bytes = 0
        self._head = waiter = self.loop.create_future()
        return waiter

    async def _send(self, upload: Upload, idle_seconds: float | None) -> None:
        transport = self._transport
        assert transport is not None  # noqa: S101 - see ask_with_upload
        is_chunked = upload.length is None
        try:
            while (piece := await upload.take()) is not None:
                if not piece:
                    continue
                if is_chunked:
                    transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                else:
                    transport.write(piece)
                if self._room is not None:
                    async with asyncio.timeout(idle_seconds):
                        await self._room
            if is_chunked:
                transport.write(b"0\r\n\r\n")
        except TimeoutError:
            self._fail(Stalled("it takes no more of the request's body"))
        except Exception as error:
            self._fail(error)

    # -- the transport's callbacks ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_asked:
            self.close()
            return
        assert self._parser is not None  # noqa: S101 - nothing comes after connection_lost
        self._barren_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # A mistake of ours would be its context.
            self._fail(BackendError(f"{error!r} {error.__context__ or ''}".rstrip()))
        else:
            if self._barren_bytes > MAX_HEAD_BYTES and self._is_asked:
                self._fail(BackendError(f"{self._barren_bytes} bytes without an end"))

    def connection_lost(self, error: Exception | None) -> None:
        self._is_reusable = False
        self._transport = None
        self._parser = None  # it holds us, and we it
        if self._room is not None and not self._room.done():
            self._room.set_exception(BrokeOff("the connection was closed"))
            self._room.exception()  # nobody may be waiting
        answer = self._answer
        if not self._is_asked:
            return
        if answer is not None and error is None and self._ends_with_connection:
            self._is_asked = False
            answer.end()
        elif answer is not None:
            answer.fail(BrokeOff(repr(error) if error else "the connection was closed"))
        else:
            self._fail(Unanswered(repr(error) if error else "the connection was closed"))

    def pause_writing(self) -> None:
        self._room = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    # -- the parser's callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._is_asked:
            raise BackendError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None:  # else it is a trailer, and nobody looks at those
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 - it is the one that calls
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if not 100 <= status <= 599 or status == 101:
            raise BackendError(f"it answered with status {status}")
        if status < 200:
            self._is_interim = True
            return
        length, is_chunked = _framing(headers)
        if len(headers) > MAX_HEADERS or self._barren_bytes > MAX_HEAD_BYTES < _size(headers):
            raise BackendError("its headers are too many or too large")
        self._answer = answer = UpstreamResponse(self, status, headers, length)
        self._ends_with_connection = length is None and not is_chunked
        if self._method == "HEAD":
            # The parser would take what comes next for the body that these headers describe.
            self._is_reusable = False
            self._end(answer)
        head = self._head
        if head is not None and not head.done():
            head.set_result(answer)

    def on_body(self, piece: bytes) -> None:
        self._barren_bytes = 0
        if self._answer is None or self._answer.is_whole:
            raise BackendError("a body where there can be none")
        self._answer.feed(piece)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
        elif self._parser is not None and self._answer is not None and self._is_asked:
            if not self._parser.should_keep_alive():
                self._is_reusable = False
            self._end(self._answer)

    # -- the answer's side -----------------------------------------------------------------------

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def release(self) -> None:
        transport = self._transport
        if (
            not self.is_free
            or (self._sender is not None and not self._sender.done())
            # It answered without having read the request to its end.
            or (transport is not None and transport.get_write_buffer_size())
        ):
            self.close()
        self._answer = self._head = self._sender = None
        self._released(self)

    # -- ends ------------------------------------------------------------------------------------

    def _end(self, answer: UpstreamResponse) -> None:
        self._is_asked = False
        answer.end()

    def _fail(self, error: Exception) -> None:
        """Nothing more is to be had from this connection."""
        head, answer = self._head, self._answer
        if answer is not None:
            answer.fail(error if isinstance(error, Stalled | BrokeOff) else BrokeOff(str(error)))
        elif head is not None and not head.done():
            head.set_exception(error)
        self._is_asked = False
        self.close()


def _framing(headers: Pairs) -> tuple[int | None, bool]:
    """Content-Length, and whether the body comes in chunks; the parser has seen to the rest."""
    length, is_chunked = None, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise BackendError(f"Transfer-Encoding {value[:50]!r}, where nobody asked for it")
            is_chunked = True
    return length, is_chunked


def _size(headers: Pairs) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
