"""One HTTP/1.1 connection to a backend: one request at a time, and its response.

httptools (llhttp) parses, strictly. A connection is closed if the backend sends anything without a
request, or beyond the end of its response, so that such bytes never answer another request. One
gap remains: bytes that arrive just as the next request is written can't be told from its response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from llamactl.core.parted_input import PartedInput
from proxy.body.upload import Upload
from proxy.headers import Pairs
from proxy.upstream.errors import BackendError, BrokeOff, Stalled, Unanswered
from proxy.upstream.response import UpstreamResponse

MAX_HEAD_BYTES = 64 * 1024
"""Of all headers of a response; also of bytes without any of a body among them."""
MAX_HEADERS = 128

HEAD_SECONDS = 30.0
"""From the first byte of a head to its last. Before the first byte a backend may compute for
minutes; a backend that has begun to answer has the rest of its head too."""
MAX_INTERIM_RESPONSES = 16
"""Responses with a status of 1xx before the response; the usual number is none."""

PART_BYTES = 16 * 1024
"""The input that is parsed at once: up to 2 ms for chunks of one byte each."""

TOGETHER_BYTES = 64 * 1024
"""A body up to this size is joined with its head, to be sent in one system call."""


class Connection(PartedInput, asyncio.Protocol):
    """``is_free`` after a whole response, unless the backend refuses further requests."""

    part_bytes = PART_BYTES
    on_resume: Callable[[], None] | None = None

    def __init__(
        self, loop: asyncio.AbstractEventLoop, released: Callable[[Connection], None]
    ) -> None:
        """``released``: called after each response that leaves the connection free."""
        self.loop = loop
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self.free_since = 0.0
        """The event loop time of its last release."""
        self._is_busy = False
        """Whether a response, or the rest of a response, is due."""
        self._is_reusable = True
        self._method = ""
        self._head: asyncio.Future[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        self._headers: Pairs = []
        self._is_interim = False
        self._interim_responses = 0
        self._is_in_head = False
        """Whether a head has begun, and not ended."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._ends_with_connection = False
        self._bytes_without_body = 0
        """Received since the last piece of a body, or since the request."""
        self._held = None
        self._is_paused = False
        self._sender: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        """Pending while the backend takes no more of the request's body."""

    @property
    def is_free(self) -> bool:
        return (
            self._is_reusable
            and not self._is_busy
            and self._transport is not None
            # The rest must not become the response to the next request.
            and self._held is None
        )

    def close(self) -> None:
        """Close at once, so that the backend stops working on the request."""
        self._is_reusable = self._is_busy = False
        self._stop_head_timer()
        self._drop_held()
        head, self._head = self._head, None
        if head is not None:
            head.cancel()
        if self._sender is not None:
            self._sender.cancel()
        if self._transport is not None:
            self._transport.abort()

    def drop(self) -> None:
        """Close, for a request that ends without its response.

        A response that has come at this moment would be in a cycle with the connection.
        """
        self.close()
        self._response = self._sender = None

    # -- requests --------------------------------------------------------------------------------

    def send_request(self, method: str, head: bytes, body: bytes) -> Awaitable[UpstreamResponse]:
        """Send a request; the result comes with the head of its response.

        Raises Unanswered if the connection was closed instead, and BackendError for a response that
        is no HTTP/1.1. After an error or a cancellation the caller must close the connection.
        """
        assert self._transport is not None  # noqa: S101 - callers have a connected one
        if len(body) <= TOGETHER_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return self._begin_response(method)

    async def send_upload(
        self, method: str, head: bytes, upload: Upload, *, first_byte: float, idle: float
    ) -> UpstreamResponse:
        """``send_request`` with a streamed body, which may go on after the return.

        ``first_byte``: seconds for the response's head after the last piece of the body; ``idle``:
        seconds in which the backend may take nothing of the body; 0: no limit. Also raises Stalled,
        and the error that ends the upload.
        """
        waiter = self._begin_response(method)
        assert self._transport is not None  # noqa: S101 - callers have a connected one
        self._transport.write(head)
        self._sender = asyncio.create_task(self._send(upload, idle or None))
        try:
            await asyncio.wait((waiter, self._sender), return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(first_byte or None):
                return await waiter
        finally:
            del waiter  # its exception would be in a cycle with this frame

    def _begin_response(self, method: str) -> asyncio.Future[UpstreamResponse]:
        self._is_busy = True
        self._method = method
        self._response = None
        self._headers = []
        self._bytes_without_body = self._interim_responses = 0
        self._head = waiter = self.loop.create_future()
        return waiter

    async def _send(self, upload: Upload, idle_seconds: float | None) -> None:
        transport = self._transport
        assert transport is not None  # noqa: S101 - see send_upload
        is_chunked = upload.length is None
        try:
            while (piece := await upload.take()) is not None:
                if not piece:
                    continue
                if is_chunked:
                    transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                else:
                    transport.write(piece)
                if self._writable is not None:
                    async with asyncio.timeout(idle_seconds):
                        await self._writable
            if is_chunked:
                transport.write(b"0\r\n\r\n")
        except TimeoutError:
            self._fail(Stalled("the backend takes no more of the request's body"))
        except Exception as error:
            self._fail(error)

    # -- the transport's callbacks ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_busy:
            self.close()
            return
        if len(data) <= PART_BYTES:
            self._parse(data)
        else:
            self._parse_in_parts(data)

    def _body_bytes_due(self) -> int:
        response = self._response
        if response is None or response.length is None or not self._is_busy:
            return 0
        return response.length - response.total_bytes

    def _may_parse(self) -> bool:
        return not self._is_paused

    def _held_transport(self) -> Connection:
        return self

    def _parse(self, data: bytes) -> None:
        if not self._is_busy:
            self.close()
            return
        assert self._parser is not None  # noqa: S101 - nothing comes after connection_lost
        self._bytes_without_body += len(data)
        if self._response is None:
            self._is_in_head = True  # also in the line ends that may come before
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # An exception in a callback of ours would be its context.
            self._fail(BackendError(f"{error!r} {error.__context__ or ''}".rstrip()))
        else:
            if self._bytes_without_body > MAX_HEAD_BYTES and self._is_busy:
                self._fail(BackendError(f"{self._bytes_without_body} bytes without a body"))
            elif self._is_in_head and self._head_timer is None:
                # A head that comes in one piece, as nearly all, sets no timer.
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._end_slow_head)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_reusable = False
        self._stop_head_timer()
        self._drop_held()
        self._transport = None
        self._parser = None  # the two refer to each other
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(BrokeOff("the connection was closed"))
            self._writable.exception()  # retrieved here, because no task may wait for it
        response = self._response
        if not self._is_busy:
            return
        if response is not None and error is None and self._ends_with_connection:
            self._is_busy = False
            response.end()
        elif response is not None:
            response.fail(BrokeOff(repr(error) if error else "the connection was closed"))
        else:
            self._fail(Unanswered(repr(error) if error else "the connection was closed"))

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # -- the parser's callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._is_busy:
            raise BackendError("more than one response")
        self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None:  # trailers are dropped
            if len(self._headers) >= MAX_HEADERS:
                raise BackendError("the headers are too many")
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 - the parser is the caller
        self._is_in_head = False
        self._stop_head_timer()
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if not 100 <= status <= 599 or status == 101:
            raise BackendError(f"the status {status} is not allowed")
        if status < 200:
            self._is_interim = True
            self._interim_responses += 1
            if self._interim_responses > MAX_INTERIM_RESPONSES:
                raise BackendError(f"more than {MAX_INTERIM_RESPONSES} interim responses")
            return
        length, is_chunked = _framing(headers)
        if self._bytes_without_body > MAX_HEAD_BYTES < _size(headers):
            raise BackendError("the headers are too large")
        self._response = response = UpstreamResponse(self, status, headers, length)
        self._ends_with_connection = length is None and not is_chunked
        if self._method == "HEAD":
            # The parser would take the next response for the body that these headers describe.
            self._is_reusable = False
            self._end(response)
        head = self._head
        if head is not None and not head.done():
            head.set_result(response)

    def on_body(self, piece: bytes) -> None:
        self._bytes_without_body = 0
        if self._response is None or self._response.is_whole:
            raise BackendError("an unexpected body")
        self._response.feed(piece)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
        elif self._parser is not None and self._response is not None and self._is_busy:
            if not self._parser.should_keep_alive():
                self._is_reusable = False
            self._end(self._response)

    # -- for the response ------------------------------------------------------------------------

    def pause(self) -> None:
        self._is_paused = True
        self.hold_reading()

    def resume(self) -> None:
        self._is_paused = False
        if self.on_resume is not None:
            self.on_resume()
        else:
            self.release_reading()

    # -- for held input --------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def hold_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release_reading(self) -> None:
        transport = self._transport
        if transport is not None and not self._is_paused and not transport.is_closing():
            transport.resume_reading()

    def abort(self) -> None:
        self.close()

    def release(self) -> None:
        transport = self._transport
        if (
            not self.is_free
            or (self._sender is not None and not self._sender.done())
            # The backend answered without having read the whole request.
            or (transport is not None and transport.get_write_buffer_size())
        ):
            self.close()
            self._response = self._head = self._sender = None
            return
        self._response = self._head = self._sender = None
        self._released(self)

    def _end_slow_head(self) -> None:
        self._head_timer = None
        self._fail(Stalled(f"the head of its response did not end within {HEAD_SECONDS:g} s"))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    # -- ends ------------------------------------------------------------------------------------

    def _end(self, response: UpstreamResponse) -> None:
        self._is_busy = False
        response.end()

    def _fail(self, error: Exception) -> None:
        """End the response with an error, and close the connection."""
        head, response = self._head, self._response
        if response is not None:
            response.fail(error if isinstance(error, Stalled | BrokeOff) else BrokeOff(str(error)))
        elif head is not None and not head.done():
            head.set_exception(error)
        self._is_busy = False
        self.close()


def _framing(headers: Pairs) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked; the parser has checked both."""
    length, is_chunked = None, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise BackendError(f"Transfer-Encoding {value[:50]!r}, which was not requested")
            is_chunked = True
    return length, is_chunked


def _size(headers: Pairs) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
