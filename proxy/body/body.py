"""The request body: reading within a limit, and the ``model`` in a JSON document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

import orjson

from llamactl.core.asgi_types import Receive
from llamactl.core.errors import InvalidRequest
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


def model_in(body: bytes) -> str:
    """The ``model`` of a JSON request. Raises InvalidRequest (400) for a body without one."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"Invalid request body: it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise InvalidRequest("Invalid request body: expected a JSON object")
    model = document.get("model")
    if model is None:
        raise InvalidRequest(
            'Model name is required: put "model" into the request; GET /v1/models lists the names'
        )
    if not isinstance(model, str) or not model:
        raise InvalidRequest("Invalid model: it must be a non-empty string")
    return model


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
_MODEL_KEY = re.compile(
    b'"'
    + b"".join(rb"(?:%c|\\u00%x)" % (letter, letter) for letter in b"model")
    + rb'"[ \t\r\n]*:[ \t\r\n]*',
    re.IGNORECASE,
)
"""Every spelling of the key ``model``. May match in other strings too, and matches ``MODEL``."""


def with_model(body: bytes, model: str) -> bytes:
    """The body with its top-level ``model`` replaced and every other byte untouched.

    Decoding and encoding the body would turn integers above 2^53 into floats for some readers,
    and lose the client's spelling of numbers; so the value is found by walking the tokens. A
    repeated key is replaced everywhere. ``body`` must have passed ``model_in``.
    """
    encoded = orjson.dumps(model)
    found = list(islice(_MODEL_KEY.finditer(body), 2))
    if len(found) == 1:
        # model_in found the key at the top level, so this match is the key. The walk below visits
        # every token: a million of them in a prompt of ten megabytes made of numbers.
        start = found[0].end()
        value = _TOKEN.match(body, start)
        assert value is not None  # noqa: S101 - model_in saw a text there
        return b"".join((memoryview(body)[:start], encoded, memoryview(body)[value.end() :]))
    parts: list[bytes] = []
    copied = depth = 0
    key = pending = None
    for match in _TOKEN.finditer(body):
        token = match.group()
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif depth == 1:
            if token == b":":
                key = pending
            elif token == b",":
                key = None
            elif key is None:
                pending = orjson.loads(token)
            elif key == "model":
                parts += (body[copied : match.start()], encoded)
                copied = match.end()
    return b"".join((*parts, body[copied:]))
