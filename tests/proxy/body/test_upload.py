from __future__ import annotations

import asyncio

import pytest

from proxy.body.upload import Upload
from proxy.errors import RequestTooLarge

LENGTH = [(b"content-length", b"6")]


async def test_pieces_are_taken_in_their_order() -> None:
    upload = Upload(b"ab", LENGTH, limit=None)
    assert await upload.take() == b"ab"
    await upload.put(b"cd", is_last=False)
    assert await upload.take() == b"cd"
    await upload.put(b"ef", is_last=True)
    assert [await upload.take(), await upload.take()] == [b"ef", None]


async def test_one_piece_waits_and_the_next_has_to() -> None:
    upload = Upload(b"ab", LENGTH, limit=None)
    await upload.take()
    await upload.put(b"cd", is_last=False)
    putting = asyncio.create_task(upload.put(b"ef", is_last=False))
    await asyncio.sleep(0.01)
    assert not putting.done()
    assert await upload.take() == b"cd"
    await putting


async def test_last_piece_never_has_to_wait() -> None:
    upload = Upload(b"ab", LENGTH, limit=None)
    await upload.take()
    await upload.put(b"cd", is_last=False)
    # The caller then has to listen for a disconnect.
    async with asyncio.timeout(10):
        await upload.put(b"ef", is_last=True)
    assert [await upload.take() for _ in range(3)] == [b"cd", b"ef", None]


async def test_pieces_gather_until_the_first_is_taken_and_no_further_than_the_limit() -> None:
    upload = Upload(b"ab", [], limit=4)
    await upload.put(b"cd", is_last=False)
    await upload.put(b"ef", is_last=False)
    putting = asyncio.create_task(upload.put(b"gh", is_last=False))
    await asyncio.sleep(0.01)
    assert not putting.done()
    assert await upload.take() == b"ab"
    with pytest.raises(RequestTooLarge):
        await upload.take()
    putting.cancel()


async def test_replaced_beginning_changes_the_length_and_not_the_limit() -> None:
    upload = Upload(b"ab", LENGTH, limit=6)
    upload.replace_beginning(b"abcd")
    assert upload.length == 8
    assert await upload.take() == b"abcd"
    await upload.put(b"cdef", is_last=True)
    assert await upload.take() == b"cdef"
