from __future__ import annotations

import asyncio
import base64
import contextlib
from hashlib import sha1

import aiohttp

from proxy.upstream import Upstream
from tests.proxy.conftest import make_target
from tests.support.until import until_async
from tests.support.wire import RawBackend, Session

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


async def test_websocket_whose_backend_reads_nothing_ends_with_llamactl(
    backend: RawBackend,
) -> None:
    async def play(session: Session) -> None:
        head = await session.request()
        (key,) = head.values(b"sec-websocket-key")
        accept = base64.b64encode(sha1(key + GUID).digest())  # noqa: S324 - the protocol's choice
        await session.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # A connection that is not read tells of a reset alone, and by writing.
        while True:
            await session.send(b"\x89\x00")
            await asyncio.sleep(0.05)

    backend.script = play
    upstream = Upstream()
    socket = await upstream.open_websocket(
        make_target(backend.origin), path_and_query="/x", headers=[], subprotocols=()
    )
    sending = asyncio.create_task(socket.send_bytes(b"x" * 2**24))
    await asyncio.sleep(0.1)
    assert not sending.done()
    await upstream.close()
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        await sending
