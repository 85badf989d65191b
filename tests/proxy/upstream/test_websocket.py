from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from proxy.upstream import Upstream
from tests.proxy.conftest import make_target
from tests.support.until import until_async
from tests.support.wire import RawBackend, Session, switching_protocols


async def test_websocket_whose_backend_reads_nothing_ends_with_llamactl(
    backend: RawBackend,
) -> None:
    async def play(session: Session) -> None:
        await session.send(switching_protocols(await session.request()))
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
