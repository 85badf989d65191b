"""How does a large request body reach the backend? Piece by piece, as the client sends it.

One piece waits here at a time: a backend that takes its time makes uvicorn read no more from the
client. Before that, while the instance may still have to start, pieces are gathered as far as the
limit goes: who is not read from is not seen to leave either, and would hold a place among those
that wait. What went through once can't be sent again, so such a request is never repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from proxy.body.multipart import FormReader
from proxy.errors import RequestTooLarge


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
        self._pieces = deque([beginning])
        self._gathered = len(beginning)
        self._is_beginning = True
        """Whether none of it was taken."""
        self._is_last = False
        """Whether nothing comes after the pieces."""
        self._has_ended = False
        self._came = asyncio.Event()
        self._came.set()
        self._taken = asyncio.Event()

    @property
    def beginning(self) -> bytes:
        """What has come already, as long as none of it was taken."""
        return self._pieces[0]

    def begin_with(self, beginning: bytes) -> None:
        """Send another beginning instead; the limit is for what the client sends."""
        grown = len(beginning) - len(self._pieces[0])
        if self.length is not None:
            self.length += grown
        self._size -= grown
        self._pieces[0] = beginning

    async def put(self, piece: bytes, *, is_last: bool) -> None:
        """Hand over the next piece; returns once there is room for it.

        For the last one there is always: who hands it over has then to listen whether the client
        is still there.
        """
        while self._came.is_set() and not is_last and not self._may_gather():
            self._taken.clear()
            await self._taken.wait()
        self._pieces.append(piece)
        self._gathered += len(piece)
        self._is_last = is_last
        self._came.set()

    def _may_gather(self) -> bool:
        return self._is_beginning and self._limit is not None and self._gathered <= self._limit

    async def take(self) -> bytes | None:
        """The next piece, once there is one; ``None`` after the last.

        Raises RequestTooLarge, or InvalidRequest for a form that turns out to be none. The last
        piece is not sent then, so the backend never has the whole body.

        Taking a piece means that the piece before has been sent.
        """
        if self._has_ended:
            return None
        await self._came.wait()
        piece = self._pieces.popleft()
        self._has_ended = self._is_last and not self._pieces
        self._size += len(piece)
        if self._limit is not None and self._size > self._limit:
            raise RequestTooLarge(self._limit)
        if self._form is not None:
            self._judge(self._form, piece)
        self._is_beginning = False
        if not self._pieces:
            self._came.clear()
            self._taken.set()
        return piece

    def _judge(self, form: FormReader, piece: bytes) -> None:
        if not self._is_beginning:
            form.feed(piece)
        if self._has_ended:
            form.end()
