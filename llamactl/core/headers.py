"""Look-up in the headers of ASGI: pairs of bytes, with names in lower case."""

from __future__ import annotations

from collections.abc import Iterable


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first header of this name; ``None`` without one."""
    for key, value in headers:
        if key == name:
            return value
    return None
