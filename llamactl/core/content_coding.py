"""Refusal of packed request bodies (``Content-Encoding: gzip`` and the like).

A packed body would have to be unpacked within limits to be routed or parsed; until llamactl does
that, every path refuses it alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from llamactl.core.errors import PackedBody


def refuse_packed(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise PackedBody (415) for the headers of a request whose body is packed."""
    coding, has_body = b"", False
    for name, value in headers:
        if name == b"content-encoding":
            coding = coding or value.strip().lower().replace(b"identity", b"").strip(b" ,")
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            has_body = True
    if coding and has_body:
        raise PackedBody(coding[:50].decode("latin-1"))
