"""Reading of a request body within its limit."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from llamactl.core.asgi_types import Message, Receive
from llamactl.core.content_coding import coding_of
from llamactl.core.turns import Turns
from proxy.body.budget import Hold, unbounded
from proxy.body.multipart import FormReader, ModelField, boundary_in, model_field_steps
from proxy.body.unpacking import check_coding, unpacked
from proxy.body.upload import Upload
from proxy.errors import RequestTooLarge


class ClientDisconnected(Exception):
    """The client has disconnected; no response can reach it."""


WHOLE_BYTES = 2**20
"""A body up to this size is read whole and can be sent again; a larger body is streamed, if its
length was announced."""


class _Gathered:
    """The pieces of a body so far, in one buffer: each piece of one byte would take 40 bytes.

    ``BytesIO`` gives its buffer away without a copy, which takes 34 ms for 64 MiB.
    """

    def __init__(self) -> None:
        self._only = b""
        self._buffer: BytesIO | None = None

    def __len__(self) -> int:
        return len(self._only) if self._buffer is None else self._buffer.tell()

    def add(self, piece: bytes) -> None:
        if self._buffer is not None:
            self._buffer.write(piece)
        elif self._only:
            self._buffer = BytesIO()
            self._buffer.write(self._only)
            self._buffer.write(piece)
            self._only = b""
        else:
            # The usual case: one piece, and no copy of it.
            self._only = piece

    def whole(self) -> bytes:
        return self._only if self._buffer is None else self._buffer.getvalue()


async def read_routed(
    receive: Receive,
    headers: Iterable[tuple[bytes, bytes]],
    limit: int,
    turns: Turns,
    hold: Hold = unbounded,
) -> tuple[bytes | Upload, ModelField | None]:
    """The body of a request that is routed by its model; for a form, with the form's field.

    A JSON document is read whole, because its last ``model`` counts. A form has one ``model``, so
    a large form is read as far as that field, and the rest goes into the Upload. Raises
    RequestTooLarge, PackedBody, InvalidRequest for a malformed form, ClientDisconnected, or what
    ``hold`` raises for a body in several pieces.
    """
    announced, coding = _announced(headers, limit)
    if coding:
        return await _read_packed_routed(receive, headers, coding, limit, turns, hold)
    piece, is_whole = _piece_of(await receive())
    if is_whole and piece.startswith(b"{") and len(piece) <= limit:
        return piece, None  # the usual request: one piece of JSON
    gathered = _Gathered()
    form: FormReader | None = None
    while True:
        # A body that begins with a brace is JSON, whatever its Content-Type, as in the seed.
        if not len(gathered):
            boundary = None if piece.startswith(b"{") else boundary_in(headers)
            form = None if boundary is None else FormReader(boundary)
        gathered.add(piece)
        if len(gathered) > limit:
            raise RequestTooLarge(limit)
        if form is not None:
            form.feed(piece)
        if is_whole:
            return gathered.whole(), None if form is None else form.end()
        if announced > WHOLE_BYTES and form is not None and form.field is not None:
            upload = Upload(gathered.whole(), headers, limit=limit, form=form, hold=hold)
            return upload, form.field
        hold(len(gathered))
        piece, is_whole = _piece_of(await receive())


async def read_beginning(
    receive: Receive,
    headers: Iterable[tuple[bytes, bytes]],
    limit: int | None,
    *,
    whole_limit: int,
    turns: Turns,
    may_stream: bool = True,
    hold: Hold = unbounded,
) -> bytes | Upload:
    """The whole body if the body is small or packed, else an Upload for the rest.

    ``may_stream``: false to read a large body whole too, for a change of it.

    A body without Content-Length (in chunks) is read whole up to ``whole_limit``, so that the
    backend gets its length: mlx_lm.server can't read chunks. Only a longer body goes on in chunks.
    Raises RequestTooLarge for a body above ``limit``, PackedBody, ClientDisconnected for a body
    that breaks off, and what ``hold`` raises for a body in several pieces.
    """
    announced, coding = _announced(headers, limit)
    if coding:
        max_bytes = whole_limit if limit is None else limit
        return await _read_packed(receive, coding, max_bytes, turns, hold)
    gathered = _Gathered()
    while True:
        piece, is_whole = _piece_of(await receive())
        gathered.add(piece)
        if limit is not None and len(gathered) > limit:
            raise RequestTooLarge(limit)
        if is_whole:
            return gathered.whole()
        is_large = announced > WHOLE_BYTES or (not announced and len(gathered) > whole_limit)
        if is_large and may_stream:
            return Upload(gathered.whole(), headers, limit=limit, hold=hold)
        hold(len(gathered))


async def _read_packed_routed(
    receive: Receive,
    headers: Iterable[tuple[bytes, bytes]],
    coding: bytes,
    limit: int,
    turns: Turns,
    hold: Hold,
) -> tuple[bytes, ModelField | None]:
    body = await _read_packed(receive, coding, limit, turns, hold)
    boundary = None if body.startswith(b"{") else boundary_in(headers)
    if boundary is None:
        return body, None
    return body, await turns.run(model_field_steps(body, boundary))


async def _read_packed(
    receive: Receive, coding: bytes, limit: int, turns: Turns, hold: Hold
) -> bytes:
    """The body unpacked: both the packed and the unpacked bytes are within the limit."""
    gathered, is_whole = _Gathered(), False
    while not is_whole:
        piece, is_whole = _piece_of(await receive())
        gathered.add(piece)
        if len(gathered) > limit:
            raise RequestTooLarge(limit)
        if not is_whole:
            hold(len(gathered))
    return await turns.run(unpacked(gathered.whole(), coding, limit, hold))


def _announced(headers: Iterable[tuple[bytes, bytes]], limit: int | None) -> tuple[int, bytes]:
    """The Content-Length, or 0 without one, and the coding of a packed body.

    Raises RequestTooLarge or PackedBody.
    """
    named = dict(headers)
    coding = b""
    if b"content-encoding" in named:
        coding = check_coding(coding_of(headers))
    length = named.get(b"content-length")
    if length is None or not length.isdigit():
        return 0, coding
    announced = int(length)
    if limit is not None and announced > limit:
        raise RequestTooLarge(limit)
    return announced, coding


def _piece_of(message: Message) -> tuple[bytes, bool]:
    """A piece of the body, and whether it is the last. Raises ClientDisconnected."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    return message.get("body", b""), not message.get("more_body")
