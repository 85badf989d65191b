"""WebSocket connections to backends, by aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Literal, cast
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from proxy.headers import Pairs
from proxy.upstream.errors import BackendError, HandshakeRefused, without_frames

HANDSHAKE_SECONDS = 10.0
"""Opening a WebSocket takes no work; a backend that takes longer hangs."""

CLOSE_SECONDS = 2.0
"""How long the connections may take to close; a backend that does not read would never end."""

_SKIPPED_BY_US = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Socket(aiohttp.ClientWebSocketResponse[Literal[False]]):
    """A backend's end of a WebSocket."""

    def __init__(
        self, reader: Any, writer: Any, protocol: Any, response: Any, *rest: Any, **further: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *rest, **further)
        # Kept: after a close that timed out, aiohttp no longer has the transport.
        self._transport: asyncio.Transport = response.connection.transport
        self._handshake: aiohttp.ClientResponse = response

    def drop(self) -> None:
        """Abort the connection; unsent bytes are lost."""
        self._transport.abort()
        self._handshake.close()

    def drop_after(self, seconds: float) -> None:
        """Give the backend this long to read the rest, then abort the connection.

        A closed transport goes on until all is written: for ever, if the backend does not read.
        """
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(seconds, self.drop)


class Sockets:
    """The WebSockets of a web process, in one aiohttp session."""

    def __init__(self) -> None:
        self._open: WeakSet[Socket] = WeakSet()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            middlewares=(_only_switching_protocols,),
            ws_response_class=cast(Any, Socket),
        )

    async def close(self) -> None:
        """Close the session, and drop the WebSockets."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._session.close()
        for socket in self._open:
            # A WebSocket with bytes for a backend that does not read would stay for ever.
            socket.drop()

    async def open(self, url: str, headers: Pairs, subprotocols: Iterable[str]) -> Socket:
        """Shake hands; the result's ``protocol`` is the backend's choice, or ``None``.

        ``url`` and ``headers`` are sent as they are. Compression is not offered: between processes
        of one machine it would cost time and save nothing, and a small compressed message may
        hide a large one. ``receive()`` returns a close frame and leaves its answer to the caller.
        Raises HandshakeRefused, or BackendError if nothing listens, or nothing that speaks
        WebSocket.
        """
        fields = CIMultiDict((name.decode("latin-1"), _text(value)) for name, value in headers)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                socket = await self._session.ws_connect(
                    URL(url, encoded=True),
                    headers=fields,
                    protocols=tuple(subprotocols),
                    autoclose=False,
                    decode_text=False,
                    # aiohttp refuses a message of exactly this size.
                    max_msg_size=MAX_MESSAGE_BYTES + 1,
                )
        except (aiohttp.ClientError, OSError) as error:
            raise BackendError(repr(error)) from without_frames(error)
        opened = cast(Socket, socket)
        self._open.add(opened)
        return opened


def _text(value: bytes) -> str:
    """The header for aiohttp, which writes UTF-8; UTF-8 stays as it came, Latin-1 is converted."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _only_switching_protocols(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Refuse any other status; aiohttp would follow a redirect to any host."""
    response = await handler(request)
    if response.status != 101:
        response.close()
        raise HandshakeRefused(response.status)
    return response
