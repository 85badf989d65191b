"""A backend's response: its head, and its body as it comes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from proxy.headers import Pairs
from proxy.upstream.errors import BackendError, BrokeOff

BUFFER_BYTES = 64 * 1024
"""The size of the buffer beyond which nothing more is read from the backend."""

SMALL_BYTES = 4096
"""Waiting pieces are joined up to this size: each piece of one byte would take 40 bytes."""


class Source(Protocol):
    """The connection of a response."""

    loop: asyncio.AbstractEventLoop

    def pause(self) -> None:
        """Stop reading from the backend."""

    def resume(self) -> None:
        """Start reading from the backend again."""

    def release(self) -> None:
        """Take the connection back, after a response that is whole or not."""


class UpstreamResponse:
    """Made by a connection after the head, and filled by the connection from then on.

    ``with response: …`` gives the connection back. It takes the next request if the whole
    body has come, and is closed otherwise.
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
        """As sent by the backend, but names in lower case."""
        self.length = length
        """The Content-Length."""
        self.total_bytes = 0
        """The size of the body so far."""
        self.is_whole = False
        """Whether the whole body has come."""
        self._source: Source | None = source
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BackendError | None = None

    @property
    def is_at_end(self) -> bool:
        """Whether the whole body has come and was read."""
        return self.is_whole and not self._pieces

    def read_at_once(self) -> bytes | None:
        """The whole body if it has come and none of it was read; ``None`` for any other."""
        if not self.is_whole or len(self._pieces) != 1 or self._size > BUFFER_BYTES:
            return None
        self._size = 0
        return self._pieces.pop()

    async def read(self) -> bytes:
        """The bytes since the last read, once there are some; ``b""`` at the end.

        Raises BrokeOff, or the error of ``fail``.
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
                # A new error: the kept error would be in a cycle with the frames that it passes.
                raise type(self._error)(*self._error.args)
            return b""
        self._pieces = []
        if self._size > BUFFER_BYTES:
            source.resume()
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_whole(self, limit: int) -> bytes:
        """The rest of the body. Raises BrokeOff, also for more than ``limit`` bytes in all."""
        pieces = []
        while not self.is_at_end:
            pieces.append(await self.read())
            if self.total_bytes > limit:
                raise BrokeOff(f"more than {limit} bytes")
        return b"".join(pieces)

    def release(self) -> None:
        """Give the connection back; a second call does nothing."""
        source, self._source = self._source, None
        if source is not None:
            if self._size > BUFFER_BYTES:
                # The body may have ended in the piece that filled the buffer. Then the connection
                # is free, and without this the next response on it would never be read.
                source.resume()
            source.release()

    def __enter__(self) -> UpstreamResponse:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # -- for the connection ----------------------------------------------------------------------

    def feed(self, piece: bytes) -> None:
        before = self._size
        self._size = size = before + len(piece)
        self.total_bytes += len(piece)
        pieces = self._pieces
        if pieces and len(pieces[-1]) + len(piece) <= SMALL_BYTES:
            pieces[-1] += piece
        else:
            pieces.append(piece)
        if before <= BUFFER_BYTES < size and self._source is not None:
            self._source.pause()
        self._wake()

    def end(self) -> None:
        self.is_whole = True
        self._wake()

    def fail(self, error: BackendError) -> None:
        """End the body with an error; bytes that came before can still be read."""
        if not self.is_whole and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
