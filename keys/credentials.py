"""Which of the places in a request holds its key?"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl


def key_in(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str:
    """The key: ``Authorization: Bearer``, then ``X-API-Key``, then ``?api_key=``; "" for none.

    ``headers`` as ASGI has them, names in lower case. As in the seed, a Bearer header settles it
    even when its token is empty, and another kind of Authorization falls through. Unlike there the
    scheme may be written in any case (RFC 9110, section 11.1).
    """
    api_key = ""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return _text(value[7:])
        if name == b"x-api-key" and not api_key:
            api_key = _text(value)
    if not api_key and b"api_key" in query:
        for name_text, value_text in parse_qsl(query.decode("latin-1")):
            if name_text == "api_key":
                return value_text
    return api_key


def _text(value: bytes) -> str:
    return value.strip().decode("utf-8", "surrogateescape")
