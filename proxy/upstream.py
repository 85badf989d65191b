"""The connections to the backends."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Iterable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llamactl.errors import LlamactlError
from llamactl.websocket_limits import MAX_MESSAGE_BYTES
from proxy.connections import Connector
from proxy.table import Target
from proxy.upload import Upload

KEEP_ALIVE_SECONDS = 4.0
"""cpp-httplib closes an idle connection after 5 s; one that we drop first can't be cut under us."""

LARGE_BODY_BYTES = 2**20
"""A larger body is written in pieces, so that other requests get their turn between them.
Nothing is copied for it, and it is not chunked: its length is known."""

HANDSHAKE_SECONDS = 10.0
"""A WebSocket is opened before any work is done; a backend that can't do that by then hangs."""

CLOSE_SECONDS = 2.0
"""How long the connections may take to close; a backend that reads nothing never lets them."""

# Tab, and everything that is visible or may be text.
_IN_HEADERS = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

_SKIPPED_BY_US = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class BackendError(Exception):
    """No answer that could be passed on."""


class Refused(BackendError):
    """Nothing listens there; the request was not sent."""


class Unanswered(BackendError):
    """The connection was closed before a byte of an answer came: it may have been too old."""


class HandshakeRefused(BackendError):
    """The backend answered a WebSocket's handshake as a request like any other."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Socket(aiohttp.ClientWebSocketResponse[Literal[True]]):
    """A backend's end of a WebSocket."""

    def __init__(
        self, reader: Any, writer: Any, protocol: Any, response: Any, *rest: Any, **further: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *rest, **further)
        # Taken now: a close that was not waited for has let go of it.
        self._transport: asyncio.Transport = response.connection.transport

    def drop_after(self, seconds: float) -> None:
        """Leave a backend so long to take what it was sent before the close, and then no more.

        A closed transport goes on until all is written; for one that does not read, for ever.
        """
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(seconds, self._transport.abort)


class Stalled(BackendError):
    """It is there, and said nothing for as long as it may be silent."""


class Limits(NamedTuple):
    """How long a backend may be silent, in seconds; 0: for as long as it likes."""

    first_byte: float = 0.0
    """Until the answer's headers, and from there until the first byte of its body. For a stream
    llama.cpp sends its headers at once, and more when it has read the whole prompt; else nothing
    before the end."""
    idle: float = 0.0
    """Between two pieces of the body; and in taking a piece of the request's."""


class Upstream:
    """One aiohttp session a web process, a second one for requests that must not share a
    connection with others (those sent again, and those that can't be), and one for WebSockets."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        # No total timeout: a generation may take an hour. A backend that is up answers a connect
        # at once, whatever it is busy with.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._pooled = aiohttp.ClientSession(
            connector=Connector(keepalive_timeout=KEEP_ALIVE_SECONDS),
            auto_decompress=False,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            read_bufsize=2**16,
        )
        self._fresh = aiohttp.ClientSession(
            connector=Connector(force_close=True),
            auto_decompress=False,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            read_bufsize=2**16,
        )
        self._sockets = aiohttp.ClientSession(
            connector=self._fresh.connector,
            connector_owner=False,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            middlewares=(_only_switching_protocols,),
            ws_response_class=Socket,
        )

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(
                    self._sockets.close(), self._pooled.close(), self._fresh.close()
                )

    async def open(
        self,
        target: Target,
        *,
        method: str,
        path_and_query: str,
        headers: CIMultiDict[str],
        body: bytes | Upload,
        fresh: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send the request and return once the response's headers are there.

        ``fresh`` makes a connection for this request alone. Raises Refused, Unanswered, Stalled,
        or BackendError where what came back is no HTTP.
        """
        session = self._fresh if fresh else self._pooled
        try:
            request = session.request(
                method,
                _url(target.origin, path_and_query),
                headers=headers,
                data=_payload(body),
                allow_redirects=False,
            )
            if isinstance(body, Upload) or self.limits.first_byte:
                response = await self._within_limits(request, body)
            else:
                response = await request
        except aiohttp.ClientConnectorError as error:
            raise Refused(str(error)) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise Unanswered(repr(error)) from error
        except aiohttp.ClientError as error:
            if isinstance(body, Upload) and isinstance(body.error, LlamactlError):
                raise body.error from None
            if isinstance(body, Upload) and body.error is not None:
                raise Stalled("it takes no more of the request's body") from error
            raise BackendError(repr(error)) from error
        except TimeoutError as error:
            raise Stalled(f"no answer within {self.limits.first_byte:g} s") from error
        if not 200 <= response.status < 600:
            response.close()
            raise BackendError(f"it answered with status {response.status}")
        if b"".join([value for _, value in response.raw_headers]).translate(None, _IN_HEADERS):
            response.close()
            raise BackendError("it answered with control characters in its headers")
        return response

    async def open_websocket(
        self,
        target: Target,
        *,
        path_and_query: str,
        headers: CIMultiDict[str],
        subprotocols: Iterable[str],
    ) -> Socket:
        """Shake hands; ``protocol`` of what comes back is what the backend chose, or ``None``.

        Compression is not offered: between processes of one machine it would cost time and save
        nothing, and a small compressed message may hide a large one. ``receive()`` hands a close
        frame over and leaves the answer to the caller. Raises HandshakeRefused, or BackendError
        where nothing listens, or nothing that speaks WebSocket.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                socket = await self._sockets.ws_connect(
                    _url(target.origin, path_and_query),
                    headers=headers,
                    protocols=tuple(subprotocols),
                    autoclose=False,
                    # aiohttp refuses one that is exactly as large.
                    max_msg_size=MAX_MESSAGE_BYTES + 1,
                )
        except (aiohttp.ClientError, OSError) as error:
            raise BackendError(repr(error)) from error
        return cast(Socket, socket)

    async def _within_limits(
        self, request: Awaitable[aiohttp.ClientResponse], body: bytes | Upload
    ) -> aiohttp.ClientResponse:
        seconds = self.limits.first_byte or None
        if not isinstance(body, Upload):
            async with asyncio.timeout(seconds):
                return await request
        body.idle_seconds = self.limits.idle or None
        async with asyncio.timeout(None) as bound:
            if seconds is not None:
                loop = asyncio.get_running_loop()
                # The upload has a limit of its own, and may take all day.
                body.on_end = lambda: bound.reschedule(loop.time() + seconds)
            try:
                return await request
            finally:
                body.on_end = None


def _payload(body: bytes | Upload) -> bytes | io.BytesIO | Upload | None:
    if isinstance(body, Upload):
        return body
    return io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body or None


async def _only_switching_protocols(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Without this aiohttp would follow a redirect, to wherever the backend likes."""
    response = await handler(request)
    if response.status != 101:
        response.close()
        raise HandshakeRefused(response.status)
    return response


@lru_cache(maxsize=4096)
def _url(origin: str, path_and_query: str) -> URL:
    # encoded=True: the client's own spelling of the path goes on as it is.
    return URL(origin + path_and_query, encoded=True)
