"""How does a large request body reach the backend? Piece by piece, as the client sends it.

One piece waits here at a time: a backend that takes its time makes uvicorn read no more from the
client. What went through once can't be sent again, so such a request is never repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from proxy.errors import BodyTooLarge


class Stuck(Exception):
    """The backend takes no more of the body."""


class Upload(Payload):
    """A request body whose beginning has come."""

    def __init__(
        self, beginning: bytes, headers: Iterable[tuple[bytes, bytes]], *, limit: int | None
    ) -> None:
        super().__init__(None)
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        # Without a length it goes on in chunks, as it came.
        self._size = lengths[0] if lengths else None
        self._piece = beginning
        self._limit = limit
        self._left = limit
        self._is_last = False
        self._came = asyncio.Event()
        self._came.set()
        self._taken = asyncio.Event()
        self.idle_seconds: float | None = None
        """For how long the backend may take nothing of it."""
        self.on_end: Callable[[], None] | None = None
        """Called once the whole body has been written."""
        self.error: Exception | None = None
        """Why it ended before its end."""

    async def put(self, piece: bytes, *, is_last: bool) -> None:
        """Hand over the next piece; returns once there is room for another."""
        while self._came.is_set():
            self._taken.clear()
            await self._taken.wait()
        self._piece, self._is_last = piece, is_last
        self._came.set()

    async def write(self, writer: AbstractStreamWriter) -> None:
        """What aiohttp calls to send the body."""
        self._consumed = True
        try:
            while True:
                await self._came.wait()
                self._count(len(self._piece))
                async with asyncio.timeout(self.idle_seconds):
                    await writer.write(self._piece)
                self._piece = b""
                is_last = self._is_last
                self._came.clear()
                self._taken.set()
                if is_last:
                    break
        except TimeoutError as error:
            self.error = Stuck()
            raise self.error from error
        except BodyTooLarge as error:
            self.error = error
            raise
        if self.on_end is not None:
            self.on_end()

    def _count(self, size: int) -> None:
        if self._limit is None or self._left is None:
            return
        self._left -= size
        if self._left < 0:
            raise BodyTooLarge(self._limit)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """What aiohttp would show of it: it is not here to be shown."""
        raise TypeError("an upload goes through, and is not kept")
