"""Context length of a model, from the metadata at the beginning of its GGUF file."""

from __future__ import annotations

import struct
from pathlib import Path

from instances.preflight.gguf import HEADER_BYTES, header_problem

READ_BYTES = 256 * 1024
"""The keys of the architecture come before the tokenizer's, whose lists have megabytes."""
MAX_KEYS = 500
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type → bytes of a value."""
_INTEGERS = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}


def context_length(path: Path) -> int | None:
    """Return the length that the model was trained for; None if the file does not tell.

    Raises OSError.
    """
    with path.open("rb") as file:
        data = file.read(READ_BYTES)
    if header_problem(data[:HEADER_BYTES]):
        return None
    try:
        return _find(data, ".context_length")
    except (struct.error, OverflowError, UnicodeDecodeError, KeyError):
        return None


def _find(data: bytes, suffix: str) -> int | None:
    """Return the first integer with a key of this end. Raises as a read behind the end does."""
    (keys,) = struct.unpack_from("<Q", data, 16)
    at = 24
    for _ in range(min(keys, MAX_KEYS)):
        name, at = _text(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        if name.endswith(suffix) and kind in _INTEGERS:
            number: int = struct.unpack_from(_INTEGERS[kind], data, at)[0]
            return number if 0 < number < 2**31 else None
        at = _behind(data, at, kind)
    return None


def _behind(data: bytes, at: int, kind: int) -> int:
    """Return the offset behind a value."""
    if kind == _STRING:
        return _text(data, at)[1]
    if kind != _ARRAY:
        return at + _SIZES[kind]
    item, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if item != _STRING:
        return at + int(count) * _SIZES[item]
    for _ in range(count):
        at = _text(data, at)[1]
    return at


def _text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + size
    if end > len(data):
        raise struct.error("behind the end")
    return data[at + 8 : end].decode(), end
