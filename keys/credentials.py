"""Extraction of the key from a request."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

_BEARER = (b"bearer ", b"bearer\t")


def key_in(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str:
    """Return the key of ``Authorization: Bearer``, else ``X-API-Key``, else ``?api_key=``, else "".

    ``headers`` have names in lower case, as in ASGI. As in the Go API, a Bearer header wins even
    with an empty token, and another scheme of Authorization is skipped. Other than in the Go API,
    the scheme may be written in any case (RFC 9110, section 11.1).
    """
    api_key = ""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() in _BEARER:
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
