"""Can these be the first bytes of a GGUF file, and if not, what are they?"""

from __future__ import annotations

HEADER_BYTES = 64
_NEWEST_VERSION = 9
"""It is 3 since 2023; far more than that is the other byte order, or no version at all."""

_OTHERS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the model itself (git lfs pull)"),
    (b"PK\x03\x04", "is a zip archive or a PyTorch checkpoint"),
    (b"\x80\x02", "is a PyTorch checkpoint"),
    (b"<", "is a page of HTML or XML, such as a failed download leaves"),
    (b"\x1f\x8b", "is compressed with gzip"),
    (b"7z\xbc\xaf", "is a 7z archive"),
    (b"lmgg", "is a GGML file, of which llama.cpp has read none since 2023"),
    (b"tjgg", "is a GGML file, of which llama.cpp has read none since 2023"),
    (b"fmgg", "is a GGML file, of which llama.cpp has read none since 2023"),
)


def fault_of_header(header: bytes) -> str:
    """What is wrong, as the end of a sentence that begins with the file's name; "" for nothing."""
    if not header:
        return "is empty"
    if not header.startswith(b"GGUF"):
        return _other(header)
    if len(header) < 24:
        return "ends within its header, so its download is not complete"
    version = int.from_bytes(header[4:8], "little")
    if 1 <= version <= _NEWEST_VERSION:
        return ""
    if 1 <= int.from_bytes(header[4:8], "big") <= _NEWEST_VERSION:
        return "is a GGUF file in big-endian byte order"
    return f"has the version {version} of GGUF, which there is not"


def _other(header: bytes) -> str:
    for start, what in _OTHERS:
        if header.startswith(start):
            return what
    # Eight bytes of length, then JSON.
    if header[8:10] == b'{"' and int.from_bytes(header[:8], "little") < 2**30:
        return "is a safetensors file; convert it to GGUF"
    if header.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in header):
        return "is a text file"
    if not any(header):
        return "begins with zeros, as a download that is not complete does"
    return "is no GGUF file: it does not begin with GGUF"
