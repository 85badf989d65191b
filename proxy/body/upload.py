"""Upload: a large request body that is streamed to the backend as the client sends it.

One piece is buffered at a time, so a slow backend makes uvicorn read no more from the client. Only
while the instance may still have to start, pieces are gathered up to the limit: a disconnect shows
only in reading, and a disconnected client would keep its place among the waiters. An upload is
never repeated, because its pieces are not kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from llamactl.core.headers import header
from proxy.body.budget import Hold, TooManyBodies, unbounded
from proxy.body.multipart import FormReader
from proxy.errors import RequestTooLarge

SMALL_BYTES = 4096
"""Gathered pieces are joined up to this size: each piece of one byte would take 40 bytes."""


class Upload:
    """A request body of which the beginning has come."""

    def __init__(
        self,
        beginning: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        limit: int | None,
        form: FormReader | None = None,
        hold: Hold = unbounded,
    ) -> None:
        """``form``: the reader that has parsed the beginning, and checks the rest."""
        self._hold = hold
        length = header(headers, b"content-length")
        self.length = None if length is None else int(length)
        """The Content-Length; ``None``: the body is chunked, and is sent on in chunks."""
        self._limit = limit
        self._form = form
        self.total_bytes = 0
        """The size of the pieces that were taken."""
        self._grown = 0
        """The part of ``total_bytes`` that the client did not send."""
        self._pieces = deque([beginning])
        self._gathered = len(beginning)
        self._is_beginning = True
        """Whether no piece was taken yet."""
        self._is_last = False
        """Whether no more pieces come."""
        self._has_ended = False
        self._available = asyncio.Event()
        self._available.set()
        self._taken = asyncio.Event()

    @property
    def beginning(self) -> bytes:
        """The first piece, as long as no piece was taken."""
        return self._pieces[0]

    def replace_beginning(self, beginning: bytes) -> None:
        """Send another first piece; the limit still counts the client's own bytes."""
        self._grown = len(beginning) - len(self._pieces[0])
        if self.length is not None:
            self.length += self._grown
        self._pieces[0] = beginning

    async def put(self, piece: bytes, *, is_last: bool) -> None:
        """Add the next piece; returns once the buffer takes it.

        The last piece is always taken at once: its caller then has to listen for a disconnect.
        """
        while self._available.is_set() and not is_last and not self._may_gather():
            self._taken.clear()
            await self._taken.wait()
        if len(self._pieces) > 1 and len(self._pieces[-1]) + len(piece) <= SMALL_BYTES:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self._gathered += len(piece)
        self._is_last = is_last
        self._available.set()

    def _may_gather(self) -> bool:
        if not self._is_beginning or self._limit is None or self._gathered > self._limit:
            return False
        try:
            self._hold(self._gathered)
        except TooManyBodies:
            return False  # the client waits, as it does for a slow backend
        return True

    async def take(self) -> bytes | None:
        """The next piece, once it has come; ``None`` after the last.

        Raises RequestTooLarge, or InvalidRequest for a form that turns out to be none. The last
        piece is not sent then, so the backend never has the whole body.

        Taking a piece means that the piece before has been sent.
        """
        if self._has_ended:
            return None
        await self._available.wait()
        piece = self._pieces.popleft()
        self._has_ended = self._is_last and not self._pieces
        self.total_bytes += len(piece)
        if self._limit is not None and self.total_bytes - self._grown > self._limit:
            raise RequestTooLarge(self._limit)
        if self._form is not None:
            self._check_form(self._form, piece)
        self._is_beginning = False
        if not self._pieces:
            self._available.clear()
            self._taken.set()
            self._hold(0)  # from now on one piece at a time
        return piece

    def _check_form(self, form: FormReader, piece: bytes) -> None:
        if not self._is_beginning:
            form.feed(piece)
        if self._has_ended:
            form.end()
