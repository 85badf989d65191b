"""The upstream client: a web process's connections to all backends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from proxy.body.upload import Upload
from proxy.headers import Pairs, request_head
from proxy.table.table import Target
from proxy.upstream.connection import Connection
from proxy.upstream.errors import Stalled
from proxy.upstream.pool import KEEP_ALIVE_SECONDS, Pool
from proxy.upstream.response import UpstreamResponse
from proxy.upstream.websocket import Socket, Sockets


class UpstreamTimeouts(NamedTuple):
    """Time limits for a silent backend, in seconds; 0: none."""

    first_byte: float = 0.0
    """Until the response's headers, and from there until the first byte of its body. For a stream
    llama.cpp sends the headers at once, and the body after it has read the whole prompt; without
    streaming it sends nothing before the end."""
    idle: float = 0.0
    """Between two pieces of the response's body, and for taking a piece of the request's."""


class Upstream:
    """Kept connections by origin; made and closed within one event loop."""

    def __init__(self, timeouts: UpstreamTimeouts | None = None) -> None:
        self.timeouts = timeouts or UpstreamTimeouts()
        self._loop = asyncio.get_running_loop()
        self._pools: dict[str, Pool] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._sockets = Sockets()

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for pool in self._pools.values():
            pool.close_idle(before=float("inf"))
        await self._sockets.close()

    async def open(
        self,
        target: Target,
        *,
        method: str,
        path_and_query: str,
        headers: Pairs,
        body: bytes | Upload,
        fresh: bool = False,
    ) -> UpstreamResponse:
        """Send the request and return once the response's headers have come.

        ``fresh`` makes a connection for this request alone. Raises Refused, Unanswered, Stalled,
        BackendError for a response that is no HTTP/1.1, or the error that ends an upload.
        """
        pool = self._pool(target.origin)
        length = body.length if isinstance(body, Upload) else len(body)
        head = request_head(method, path_and_query, pool.host, headers, length)
        connection = None if fresh else pool.take()
        if connection is None:
            connection = await pool.connect(Connection.close if fresh else pool.give_back)
        first_byte, idle = self.timeouts
        try:
            if isinstance(body, Upload):
                return await connection.send_upload(
                    method, head, body, first_byte=first_byte, idle=idle
                )
            if first_byte:
                async with asyncio.timeout(first_byte):
                    return await connection.send_request(method, head, body)
            return await connection.send_request(method, head, body)
        except TimeoutError as error:
            connection.drop()
            raise Stalled(f"no answer within {first_byte:g} s") from error
        except BaseException:
            # At a disconnect of the client too: the backend stops when its connection closes.
            connection.drop()
            raise

    async def open_websocket(
        self,
        target: Target,
        *,
        path_and_query: str,
        headers: Pairs,
        subprotocols: Iterable[str],
    ) -> Socket:
        """See ``Sockets.open``."""
        return await self._sockets.open(target.origin + path_and_query, headers, subprotocols)

    def _pool(self, origin: str) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, self._loop)
            if self._sweep is None:
                self._sweep = self._loop.call_later(KEEP_ALIVE_SECONDS / 4, self._close_idle)
        return pool

    def _close_idle(self) -> None:
        """Close idle connections; pools stay, as there are no more of them than ports."""
        before = self._loop.time() - KEEP_ALIVE_SECONDS
        for pool in self._pools.values():
            pool.close_idle(before)
        self._sweep = self._loop.call_later(KEEP_ALIVE_SECONDS / 4, self._close_idle)
