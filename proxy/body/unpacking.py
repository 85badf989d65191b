"""Unpacking of request bodies: gzip, deflate and zstd, in steps of bounded time and memory.

Coding agents pack long conversations. A backend takes plain bodies alone, and routing needs the
body's ``model``, so the proxy unpacks a body before it forwards it.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from io import BytesIO

import zstandard

from llamactl.core.errors import InvalidRequest, PackedBody
from proxy.body.budget import Hold, unbounded
from proxy.errors import RequestTooLarge

MAX_MEMBERS = 100
"""Of a body: gzip members or zstd frames, one behind the other. Clients send one."""
MAX_WINDOW_BYTES = 8 * 2**20
"""RFC 9659: a zstd frame for HTTP needs no larger window."""

_GZIP_SLICE_BYTES = 16 * 1024
_GZIP_STEP_BYTES = 256 * 1024
"""Input and output of one step: 1 ms at most."""
_ZSTD_SLICE_BYTES = 128
"""Input of one step. Four bytes may become a block of 128 KiB, so this may become 4 MiB, in 9 ms;
``zstandard`` has no decompressor with a limit on its output that also tells where a frame ends."""


Steps = Generator[None, None, bytes]


def check_coding(coding: bytes) -> bytes:
    """The coding, if it is known. Raises PackedBody (415)."""
    if coding and coding not in _UNPACKERS:
        raise PackedBody(coding[:50].decode("latin-1"), ACCEPTED)
    return coding


def unpacked(body: bytes, coding: bytes, limit: int, hold: Hold = unbounded) -> Steps:
    """Unpack a body in steps, and hold it.

    Raises RequestTooLarge for more than ``limit`` bytes, InvalidRequest for a body that is not
    packed as announced, and what ``hold`` raises.
    """
    try:
        return (yield from _UNPACKERS[coding](body, _Output(limit, hold)))
    except (zlib.error, zstandard.ZstdError, _Malformed) as error:
        raise InvalidRequest(
            f"Invalid request body: it can't be unpacked as Content-Encoding {coding.decode()!r}"
            f" says ({error})"
        ) from None


class _Malformed(Exception):
    """A packed body that breaks off, or goes on behind its end."""


class _Output:
    """The unpacked bytes so far."""

    def __init__(self, limit: int, hold: Hold) -> None:
        self._buffer = BytesIO()
        self._limit = limit
        self._hold = hold

    def add(self, piece: bytes) -> None:
        if self._buffer.tell() + len(piece) > self._limit:
            raise RequestTooLarge(self._limit)
        self._hold(self._buffer.tell() + len(piece))
        self._buffer.write(piece)

    def whole(self) -> bytes:
        # The buffer is given away without a copy.
        return self._buffer.getvalue()


def _unpack_gzip(body: bytes, output: _Output) -> Steps:
    """Unpack the members of a gzip file (RFC 1952, section 2.2)."""
    at = 0
    for _ in range(MAX_MEMBERS):
        at = yield from _inflate(body, at, 16 + zlib.MAX_WBITS, output)
        if at == len(body):
            return output.whole()
    raise _Malformed(f"it has more than {MAX_MEMBERS} members")


def _unpack_deflate(body: bytes, output: _Output) -> Steps:
    """Unpack the coding ``deflate``: in zlib's format, or bare as some clients send it."""
    # RFC 1950, section 2.2. No bare stream begins like this: it would be a block without
    # compression whose unused bits are set.
    is_zlib = len(body) > 1 and body[0] & 0x8F == 0x08 and int.from_bytes(body[:2], "big") % 31 == 0
    end = yield from _inflate(body, 0, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS, output)
    if end != len(body):
        raise _Malformed("something follows its end")
    return output.whole()


def _inflate(body: bytes, at: int, window_bits: int, output: _Output) -> Generator[None, None, int]:
    """Unpack one stream from a place of the body; returns where the stream ends."""
    decompressor = zlib.decompressobj(window_bits)
    while not decompressor.eof:
        if at >= len(body):
            raise _Malformed("it breaks off")
        piece, is_full = body[at : at + _GZIP_SLICE_BYTES], False
        at += len(piece)
        # A full step may leave output behind when its input is used up.
        while (piece or is_full) and not decompressor.eof:
            step = decompressor.decompress(piece, _GZIP_STEP_BYTES)
            output.add(step)
            piece, is_full = decompressor.unconsumed_tail, len(step) == _GZIP_STEP_BYTES
            yield
    return at - len(decompressor.unused_data)


def _unpack_zstd(body: bytes, output: _Output) -> Steps:
    """Unpack the frames of a zstd file (RFC 8878, section 3.1)."""
    at = 0
    context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    for _ in range(MAX_MEMBERS):
        frame = context.decompressobj()
        while not frame.eof:
            if at >= len(body):
                raise _Malformed("it breaks off")
            output.add(frame.decompress(body[at : at + _ZSTD_SLICE_BYTES]))
            at += _ZSTD_SLICE_BYTES
            yield
        at = min(at, len(body)) - len(frame.unused_data)
        if at == len(body):
            return output.whole()
    raise _Malformed(f"it has more than {MAX_MEMBERS} frames")


_UNPACKERS = {
    b"gzip": _unpack_gzip,
    b"x-gzip": _unpack_gzip,
    b"deflate": _unpack_deflate,
    b"zstd": _unpack_zstd,
}
ACCEPTED = "gzip, deflate, zstd"
