"""The request body: read it within bounds, find ``model`` in it, put another one there."""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson

from llamactl.asgi_types import Receive
from llamactl.errors import InvalidRequest
from proxy.errors import BodyTooLarge


class ClientGone(Exception):
    """The client hung up; there is nobody left to answer."""


async def read_body(receive: Receive, headers: Iterable[tuple[bytes, bytes]], limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge, or ClientGone where it breaks off."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise BodyTooLarge(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        # The usual case: one message, and no copy of it.
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body
    chunks = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def model_in(body: bytes) -> str:
    """The ``model`` of a JSON request. Raises InvalidRequest (400) where there is none."""
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


def with_model(body: bytes, model: str) -> bytes:
    """The body with its top-level ``model`` replaced and every other byte untouched.

    Decoding and encoding it again would turn integers above 2^53 into floats for some readers
    and lose the client's own spelling of numbers; so the value is found by walking the tokens.
    Where the key is repeated each one is replaced. ``body`` must be what ``model_in`` accepted.
    """
    encoded = orjson.dumps(model)
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
