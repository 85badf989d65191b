"""Limits on the head of a request, checked before anything reads its headers.

Parsers of single headers take quadratic time. ``email``, with which Django and DRF parse
Content-Type, takes 2 s of the event loop for 60,000 semicolons; ``http.cookies`` takes 0.1 s for
8,000 backslashes. Within these limits each takes less than 50 ms.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llamactl.core.errors import UriTooLong
from llamactl.server.web.errors import HeadTooLarge, MalformedRequest

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers."""

MAX_LINE_BYTES = 8 * 1024
"""The request line, and each header; llama.cpp and the ``websockets`` package have this limit."""

MAX_TARGET_BYTES = MAX_LINE_BYTES - len(b"OPTIONS  HTTP/1.1\r\n")

MAX_HEADERS = 128
"""The limit of the ``websockets`` package for a handshake."""

_MAX_BYTES = {b"content-type": 500, b"cookie": 3 * 1024}
"""Headers whose parsers take quadratic time."""

_SMALL_BYTES = min(_MAX_BYTES.values())
"""Headers of this size in all are within every limit."""

_ONCE = frozenset((b"authorization", b"content-type", b"host", b"x-api-key"))
"""Headers that may come once: of two, the proxy would read the first and Django both."""

_OTHER_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:(?![ \t]*websocket[ \t]*\r\n)[^\r\n]*", re.I)

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""A name or address, and a port: what Django accepts, and ``_``, which names in Docker have."""

Headers = Sequence[tuple[bytes, bytes]]


def check_head(target: bytes, headers: Headers, *, is_host_required: bool) -> None:
    """Raise an error (400, 414 or 431) for a head that must not reach the application."""
    if len(target) > MAX_TARGET_BYTES:
        raise UriTooLong(MAX_TARGET_BYTES)
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"a request must have at most {MAX_HEADERS} headers")
    # Each request passes here, so what is usual is looked up without a loop of ours.
    named = dict(headers)
    host = named.get(b"host")
    if host is None:
        if is_host_required:
            raise MalformedRequest("a request of HTTP/1.1 must have the header Host")
    elif not _is_host(host):
        # A link in an error repeats it, and Django would refuse it with a message of its own.
        raise MalformedRequest("the header Host must be a name or an address, and maybe a port")
    is_repeating = len(named) != len(headers)
    if is_repeating:
        _check_once(headers)
    if is_repeating or len(b"".join(named)) + len(b"".join(named.values())) > _SMALL_BYTES:
        _check_sizes(headers)


@lru_cache(maxsize=64)
def _is_host(host: bytes) -> bool:
    """Whether a ``Host`` is well-formed; a client sends the same one again and again."""
    return _HOST.fullmatch(host) is not None


def check_handshake(method: str, http_version: str, headers: Headers) -> None:
    """Raise MalformedRequest for a WebSocket handshake that no parser would answer."""
    if method != "GET" or http_version != "1.1":
        raise MalformedRequest("a WebSocket handshake must be a GET request of HTTP/1.1")
    if has_body(headers):
        raise MalformedRequest("a WebSocket handshake must not have a body")


def has_body(headers: Headers) -> bool:
    """Whether a head announces a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in headers
    )


def without_other_upgrades(data: bytes) -> bytes:
    """Remove each ``Upgrade`` header but WebSocket's; a server may ignore an offered upgrade.

    The parser takes all bytes after such a head for another protocol, so the request would lose its
    body. Java's client and ``curl --http2`` offer ``h2c`` with each request.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return data
    head: Any = data[: end + 2]
    return _OTHER_UPGRADE.sub(b"", head) + data[end + 2 :]


def _check_once(headers: Headers) -> None:
    """Raise MalformedRequest for a repeated header that must come once."""
    counts = Counter(name for name, _ in headers)
    for name in _ONCE:
        if counts[name] > 1:
            raise MalformedRequest(f"the header {_shown(name)} must come once")


def _check_sizes(headers: Headers) -> None:
    """Raise HeadTooLarge for a header beyond its limit.

    Repeated headers count together: Django joins their values.
    """
    sizes: Counter[bytes] = Counter()
    for name, value in headers:
        sizes[name] += len(value)
        limit = _MAX_BYTES.get(name, MAX_LINE_BYTES - len(name) - len(b": \r\n"))
        if sizes[name] > limit:
            raise HeadTooLarge(f"the header {_shown(name)} must have at most {limit} bytes")


def _shown(name: bytes) -> str:
    return name[:40].decode("latin-1").title()
