"""How does a large request body reach the backend? Piece by piece, as the client sends it.

One piece waits here at a time: a backend that takes its time makes uvicorn read no more from the
client. What went through once can't be sent again, so such a request is never repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from proxy.errors import BodyTooLarge
from proxy.form import FormReader


class Upload:
    """A request body whose beginning has come."""

    def __init__(
        self,
        beginning: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        limit: int | None,
        form: FormReader | None = None,
    ) -> None:
        """``form``: what has read the beginning, and is to look at the rest."""
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        self.length = lengths[0] if lengths else None
        """Without one it goes on in chunks, as it came."""
        self._limit = limit
        self._form = form
        self._size = 0
        self._piece = beginning
        self._is_beginning = True
        self._is_last = False
        self._has_ended = False
        self._came = asyncio.Event()
        self._came.set()
        self._taken = asyncio.Event()

    @property
    def beginning(self) -> bytes:
        """What has come already, as long as none of it was taken."""
        return self._piece

    def begin_with(self, beginning: bytes) -> None:
        """Send another beginning instead; the limit is for what the client sends."""
        grown = len(beginning) - len(self._piece)
        if self.length is not None:
            self.length += grown
        self._size -= grown
        self._piece = beginning

    async def put(self, piece: bytes, *, is_last: bool) -> None:
        """Hand over the next piece; returns once there is room for another."""
        while self._came.is_set():
            self._taken.clear()
            await self._taken.wait()
        self._piece, self._is_last = piece, is_last
        self._came.set()

    async def take(self) -> bytes | None:
        """The next piece, once there is one; ``None`` after the last.

        Raises BodyTooLarge, or InvalidRequest where it turns out to be no form; the last piece is
        not sent then, so that the backend never has the whole of it.

        To ask for it is to say that the one before has been sent.
        """
        if self._has_ended:
            return None
        await self._came.wait()
        piece, self._piece = self._piece, b""
        self._has_ended = self._is_last
        self._size += len(piece)
        if self._limit is not None and self._size > self._limit:
            raise BodyTooLarge(self._limit)
        if self._form is not None:
            self._judge(self._form, piece)
        self._came.clear()
        self._taken.set()
        return piece

    def _judge(self, form: FormReader, piece: bytes) -> None:
        if self._is_beginning:
            self._is_beginning = False
        else:
            form.feed(piece)
        if self._is_last:
            form.end()
