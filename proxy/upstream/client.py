"""Asking a backend: the connections of a web process to all of them."""

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
    """How long a backend may be silent, in seconds; 0: for as long as it likes."""

    first_byte: float = 0.0
    """Until the answer's headers, and from there until the first byte of its body. For a stream
    llama.cpp sends its headers at once, and more when it has read the whole prompt; else nothing
    before the end."""
    idle: float = 0.0
    """Between two pieces of the body; and in taking a piece of the request's."""


class Upstream:
    """Kept connections by origin; made and closed within one event loop."""

    def __init__(self, limits: UpstreamTimeouts | None = None) -> None:
        self.limits = limits or UpstreamTimeouts()
        self._loop = asyncio.get_running_loop()
        self._pools: dict[str, Pool] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._sockets = Sockets()

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for pool in self._pools.values():
            pool.drop_old(before=float("inf"))
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
        """Send the request and return once the answer's headers are there.

        ``fresh`` makes a connection for this request alone. Raises Refused, Unanswered, Stalled,
        BackendError where what came back is no HTTP/1.1, or what an upload ends with.
        """
        pool = self._pool(target.origin)
        length = body.length if isinstance(body, Upload) else len(body)
        head = request_head(method, path_and_query, pool.host, headers, length)
        connection = None if fresh else pool.take()
        if connection is None:
            connection = await pool.connect(Connection.close if fresh else pool.give_back)
        first_byte, idle = self.limits
        try:
            if isinstance(body, Upload):
                return await connection.ask_with_upload(
                    method, head, body, first_byte=first_byte, idle=idle
                )
            if first_byte:
                async with asyncio.timeout(first_byte):
                    return await connection.ask(method, head, body)
            return await connection.ask(method, head, body)
        except TimeoutError as error:
            connection.close()
            raise Stalled(f"no answer within {first_byte:g} s") from error
        except BaseException:
            # The client's leaving among them: the backend stops when its connection closes.
            connection.close()
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
                self._sweep = self._loop.call_later(KEEP_ALIVE_SECONDS / 4, self._drop_old)
        return pool

    def _drop_old(self) -> None:
        """Let go of what has not been used for a while; there are no more pools than ports."""
        before = self._loop.time() - KEEP_ALIVE_SECONDS
        for pool in self._pools.values():
            pool.drop_old(before)
        self._sweep = self._loop.call_later(KEEP_ALIVE_SECONDS / 4, self._drop_old)
