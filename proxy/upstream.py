"""The connections to the backends."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal, cast

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llamactl.websocket_limits import MAX_MESSAGE_BYTES
from proxy.table import Target

KEEP_ALIVE_SECONDS = 4.0
"""cpp-httplib closes an idle connection after 5 s; one that we drop first can't be cut under us."""

LARGE_BODY_BYTES = 2**20
"""A larger body is written in pieces, so that other requests get their turn between them.
Nothing is copied for it, and it is not chunked: its length is known."""

HANDSHAKE_SECONDS = 10.0
"""A WebSocket is opened before any work is done; a backend that can't do that by then hangs."""

CLOSE_SECONDS = 2.0
"""How long the connections may take to close; a backend that reads nothing never lets them."""

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


class Upstream:
    """One aiohttp session a web process, a second one for requests that are sent again, and one
    for WebSockets, whose connections can't be kept for others either."""

    def __init__(self) -> None:
        # No total timeout: a generation may take an hour. A backend that is up answers a connect
        # at once, whatever it is busy with.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._pooled = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            auto_decompress=False,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            read_bufsize=2**16,
        )
        self._fresh = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
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
        body: bytes,
        fresh: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send the request and return once the response's headers are there.

        ``fresh`` makes a connection for this request alone. Raises Refused, Unanswered, or
        BackendError where what came back is no HTTP.
        """
        session = self._fresh if fresh else self._pooled
        try:
            return await session.request(
                method,
                _url(target.origin, path_and_query),
                headers=headers,
                data=io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body or None,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            raise Refused(str(error)) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise Unanswered(repr(error)) from error
        except aiohttp.ClientError as error:
            raise BackendError(repr(error)) from error

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
