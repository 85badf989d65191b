"""Recognition of GGUF files, and of files mistaken for GGUF, by their first bytes."""

from __future__ import annotations

HEADER_BYTES = 64
_NEWEST_VERSION = 9
"""The version is 3 since 2023; a far higher number is in the other byte order, or no version."""

_OTHERS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the model itself (git lfs pull)"),
    (b"PK\x03\x04", "is a zip archive or a PyTorch checkpoint"),
    (b"\x80\x02", "is a PyTorch checkpoint"),
    (b"<", "is an HTML or XML page, like that of a failed download"),
    (b"\x1f\x8b", "is compressed with gzip"),
    (b"7z\xbc\xaf", "is a 7z archive"),
    (b"lmgg", "is a GGML file, which llama.cpp has not read since 2023"),
    (b"tjgg", "is a GGML file, which llama.cpp has not read since 2023"),
    (b"fmgg", "is a GGML file, which llama.cpp has not read since 2023"),
)


def header_problem(header: bytes) -> str:
    """Return what is wrong, to follow the file's name in a sentence; "" for a GGUF file."""
    if not header:
        return "is empty"
    if not header.startswith(b"GGUF"):
        return _name_other(header)
    if len(header) < 24:
        return "ends within its header, so its download is not complete"
    version = int.from_bytes(header[4:8], "little")
    if 1 <= version <= _NEWEST_VERSION:
        return ""
    if 1 <= int.from_bytes(header[4:8], "big") <= _NEWEST_VERSION:
        return "is a GGUF file in big-endian byte order"
    return f"has version {version} of GGUF, which does not exist"


def _name_other(header: bytes) -> str:
    for start, description in _OTHERS:
        if header.startswith(start):
            return description
    # Eight bytes of length, then JSON.
    if header[8:10] == b'{"' and int.from_bytes(header[:8], "little") < 2**30:
        return "is a safetensors file; convert it to GGUF"
    if header.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in header):
        return "is a text file"
    if not any(header):
        return "begins with zeros, like an incomplete download"
    return "is no GGUF file: it does not begin with GGUF"
