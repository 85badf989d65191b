"""Reading of a request body within its limit."""

from __future__ import annotations

from collections.abc import Iterable

from llamactl.core.asgi_types import Receive
from proxy.body.multipart import FormReader, ModelField, boundary_in
from proxy.body.upload import Upload
from proxy.errors import RequestTooLarge


class ClientDisconnected(Exception):
    """The client has disconnected; no response can reach it."""


WHOLE_BYTES = 2**20
"""A body up to this size is read whole and can be sent again; a larger body is streamed."""


async def read_routed(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], limit: int
) -> tuple[bytes | Upload, ModelField | None]:
    """The body of a request that is routed by its model; for a form, with the form's field.

    A JSON document is read whole, because its last ``model`` counts. A form has one ``model``, so
    a large form is read as far as that field, and the rest goes into the Upload. Raises
    RequestTooLarge, InvalidRequest for a malformed form, or ClientDisconnected.
    """
    announced = _announced(headers, limit)
    chunks: list[bytes] = []
    size = 0
    form: FormReader | None = None
    while True:
        chunk, is_whole = await _next(receive)
        # A body that begins with a brace is JSON, whatever its Content-Type, as in the seed.
        if not size:
            boundary = None if chunk.startswith(b"{") else boundary_in(headers)
            form = None if boundary is None else FormReader(boundary)
        size += len(chunk)
        if size > limit:
            raise RequestTooLarge(limit)
        chunks.append(chunk)
        if form is not None:
            form.feed(chunk)
        is_large = announced > WHOLE_BYTES or size > WHOLE_BYTES
        if is_whole or (is_large and form is not None and form.field is not None):
            # The usual case: one message, and no copy of it.
            read = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if form is None or is_whole:
                return read, None if form is None else form.end()
            return Upload(read, headers, limit=limit, form=form), form.field


async def read_beginning(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], limit: int | None
) -> bytes | Upload:
    """The whole body if the body is small, else an Upload for the rest.

    Raises RequestTooLarge for a Content-Length above ``limit``, and ClientDisconnected for a body
    that breaks off.
    """
    announced = _announced(headers, limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        chunk, is_whole = await _next(receive)
        chunks.append(chunk)
        size += len(chunk)
        if limit is not None and size > limit:
            raise RequestTooLarge(limit)
        if is_whole or announced > WHOLE_BYTES or size > WHOLE_BYTES:
            read = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            return read if is_whole else Upload(read, headers, limit=limit)


def _announced(headers: Iterable[tuple[bytes, bytes]], limit: int | None) -> int:
    """The Content-Length, or 0 without one. Raises RequestTooLarge."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            announced = int(value)
            if limit is not None and announced > limit:
                raise RequestTooLarge(limit)
            return announced
    return 0


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of the body, and whether it is the last."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    return message.get("body", b""), not message.get("more_body")
