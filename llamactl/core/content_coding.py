"""Content codings of request bodies (``Content-Encoding: gzip`` and the like).

The proxy unpacks the codings that ``proxy.body.unpacking`` has; every other path refuses a packed
body, because Django would have to read it unpacked within limits.
"""

from __future__ import annotations

from collections.abc import Iterable

from llamactl.core.errors import PackedBody


def coding_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The codings of a request's body, in lower case; empty for a plain body or none at all."""
    codings: list[bytes] = []
    has_body = False
    for name, value in headers:
        if name == b"content-encoding":
            codings += (each.strip() for each in value.lower().split(b","))
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            has_body = True
    return b", ".join(each for each in codings if each not in (b"", b"identity")) * has_body


def refuse_packed(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise PackedBody (415) for the headers of a request with a packed body."""
    coding = coding_of(headers)
    if coding:
        raise PackedBody(coding[:50].decode("latin-1"))
