"""A backend's answer: its head, and its body as it comes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from proxy.headers import Pairs
from proxy.upstream.errors import BackendError, BrokeOff

BUFFER_BYTES = 64 * 1024
"""What may wait here to be read; then the backend has to wait."""


class Source(Protocol):
    """The connection that an answer comes on."""

    loop: asyncio.AbstractEventLoop

    def pause(self) -> None:
        """Read no more from the backend."""

    def resume(self) -> None:
        """Read from it again."""

    def release(self) -> None:
        """The answer is done with, whole or not."""


class UpstreamResponse:
    """Made by a connection when the head is there, and filled by it from then on.

    ``async with answer: …`` gives the connection back: for the next request where the whole body
    has come, else to be closed.
    """

    __slots__ = (
        "_error",
        "_pieces",
        "_size",
        "_source",
        "_waiter",
        "headers",
        "is_whole",
        "length",
        "status",
        "total_bytes",
    )

    def __init__(self, source: Source, status: int, headers: Pairs, length: int | None) -> None:
        self.status = status
        self.headers = headers
        """As they came, names in lower case."""
        self.length = length
        """Its Content-Length."""
        self.total_bytes = 0
        """How much of its body has come so far."""
        self.is_whole = False
        """Whether all of its body has come."""
        self._source: Source | None = source
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BackendError | None = None

    @property
    def is_at_end(self) -> bool:
        """Whether all of the body has come and been read."""
        return self.is_whole and not self._pieces

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    async def read(self) -> bytes:
        """What has come since the last time, at least a byte; ``b""`` at the end.

        Raises BrokeOff, or what ``fail`` was told.
        """
        source = self._source
        assert source is not None, "read after it was given back"  # noqa: S101 - a defect of ours
        if not self._pieces and not self.is_whole and self._error is None:
            self._waiter = source.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        pieces = self._pieces
        if not pieces:
            if self._error is not None:
                # A new one: ours would hold the frames that it goes through, and they hold us.
                raise type(self._error)(*self._error.args)
            return b""
        self._pieces = []
        if self._size > BUFFER_BYTES:
            source.resume()
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_whole(self, limit: int) -> bytes:
        """All that has not been read yet. Raises BrokeOff, also beyond ``limit`` bytes."""
        pieces = []
        while not self.is_at_end:
            pieces.append(await self.read())
            if self.total_bytes > limit:
                raise BrokeOff(f"more than {limit} bytes")
        return b"".join(pieces)

    def release(self) -> None:
        """Give the connection back; a second time it does nothing."""
        source, self._source = self._source, None
        if source is not None:
            if self._size > BUFFER_BYTES:
                # All of it may have come in the piece that was too much: the connection is free,
                # and the next answer would wait on it for ever.
                source.resume()
            source.release()

    async def __aenter__(self) -> UpstreamResponse:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    # -- for the connection ----------------------------------------------------------------------

    def feed(self, piece: bytes) -> None:
        before = self._size
        self._size = size = before + len(piece)
        self.total_bytes += len(piece)
        self._pieces.append(piece)
        if before <= BUFFER_BYTES < size and self._source is not None:
            self._source.pause()
        self._wake()

    def end(self) -> None:
        self.is_whole = True
        self._wake()

    def fail(self, error: BackendError) -> None:
        """Nothing more will come. What came before is still to be read."""
        if not self.is_whole and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
