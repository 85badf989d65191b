from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable

import pytest
import zstandard

from llamactl.core.errors import InvalidRequest, PackedBody
from llamactl.core.turns import at_once
from proxy.body.unpacking import MAX_MEMBERS, check_coding, unpacked
from proxy.errors import RequestTooLarge
from tests.support.loop_stall import measured_memory

TEXT = b'{"model": "demo", "messages": [' + b'{"role": "user", "content": "hello"}, ' * 9000 + b"]}"
NOISE = os.urandom(100_000)
PACKERS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"gzip", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", lambda body: zlib.compress(body, wbits=-15)),
    (b"deflate", lambda body: zlib.compress(body, wbits=9)),
    (b"zstd", zstandard.compress),
]
EACH = pytest.mark.parametrize(("coding", "pack"), PACKERS)


def unpack(body: bytes, coding: bytes, limit: int = 10**6) -> bytes:
    return at_once(unpacked(body, coding, limit))


@EACH
@pytest.mark.parametrize("body", [b"", b"x", TEXT, NOISE, bytes(2**18), bytes(2**18 + 1)])
def test_body_is_unpacked(coding: bytes, pack: Callable[[bytes], bytes], body: bytes) -> None:
    assert unpack(pack(body), coding) == body


@EACH
def test_limit_counts_the_unpacked_bytes(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    assert unpack(packed, coding, len(TEXT)) == TEXT
    with pytest.raises(RequestTooLarge):
        unpack(packed, coding, len(TEXT) - 1)


@EACH
def test_body_that_breaks_off_is_refused(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(NOISE[:2000])
    for size in (0, 1, 5, len(packed) // 2, len(packed) - 1):
        with pytest.raises(InvalidRequest, match="unpacked"):
            unpack(packed[:size], coding)


@EACH
def test_body_that_goes_on_behind_its_end_is_refused(
    coding: bytes, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(InvalidRequest, match="unpacked"):
        unpack(pack(TEXT) + b"more", coding)


@pytest.mark.parametrize(("coding", "pack"), [PACKERS[0], PACKERS[-1]])
def test_members_one_behind_the_other_are_one_body(
    coding: bytes, pack: Callable[[bytes], bytes]
) -> None:
    assert unpack(pack(b"a") + pack(TEXT) + pack(b""), coding) == b"a" + TEXT
    with pytest.raises(InvalidRequest, match="more than"):
        unpack(pack(b"") * (MAX_MEMBERS + 1), coding)


def test_zstd_window_above_that_of_http_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InvalidRequest, match="memory"):
        unpack(packed.compress(NOISE) + packed.flush(), b"zstd")


def zstd_bomb(blocks: int) -> bytes:
    """A frame of blocks of 128 KiB, each in four bytes: the densest that zstd has."""
    block = struct.pack("<I", (2**17 << 3) | 0b010)[:3] + b"\0"
    last = struct.pack("<I", (2**17 << 3) | 0b011)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\0\x38" + block * (blocks - 1) + last


def test_bombs_take_no_more_memory_than_the_limit() -> None:
    bombs = [
        (b"zstd", zstd_bomb(10_000)),
        (b"gzip", gzip.compress(bytes(32 * 2**20), 1)),
    ]
    for coding, bomb in bombs:
        with measured_memory() as memory, pytest.raises(RequestTooLarge):
            unpack(bomb, coding, 2**20)
        # The limit's own bytes, and for zstd one step and the window.
        assert memory.grown_bytes < 2 * 2**20 + (28 * 2**20 if coding == b"zstd" else 0)


def test_each_step_of_the_densest_frame_is_bounded() -> None:
    steps = unpacked(zstd_bomb(640), b"zstd", 2**30)
    # 80 MiB in steps of at most 8 MiB.
    assert sum(1 for _ in steps) >= 10


def test_coding_that_is_unknown_is_refused_by_its_name() -> None:
    assert check_coding(b"zstd") == b"zstd"
    assert check_coding(b"") == b""
    with pytest.raises(PackedBody, match=r"'br'.*gzip, deflate, zstd"):
        check_coding(b"br")
