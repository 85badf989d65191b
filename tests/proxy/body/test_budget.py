"""Limit on all bodies together: shares of the keys, and each way in which a body is read."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from llamactl.core.turns import Turns
from proxy.body.body import read_beginning, read_routed
from proxy.body.budget import BodyBudget, Hold, TooManyBodies
from proxy.body.upload import Upload
from tests.proxy.body.test_body import receiving

Read = Callable[[list[tuple[bytes, bytes]], list[bytes], Hold], Awaitable[Any]]


def test_one_key_gets_half_and_the_next_a_share_of_the_rest() -> None:
    budget = BodyBudget(100)
    budget.hold("a", 1, 30)
    budget.hold("b", 1, 20)
    with pytest.raises(TooManyBodies):
        budget.hold("c", 1, 1)
    budget.hold("d", 2, 25)
    budget.hold("e", None, 12)
    with pytest.raises(TooManyBodies):
        budget.hold("d", 2, 26)


def test_a_body_that_grows_is_counted_once_and_freed_at_its_end() -> None:
    budget = BodyBudget(100)
    for size in range(51):
        budget.hold("a", 1, size)
    with pytest.raises(TooManyBodies):
        budget.hold("a", 1, 51)
    budget.release("a")
    budget.release("a")
    budget.hold("b", 1, 50)
    budget.hold("b", 1, 0)
    budget.hold("c", 1, 50)
    for request in "bc":
        budget.release(request)
    assert budget._free_bytes == 100
    assert not budget._by_key
    assert not budget._held


def pieces_of(*pieces: bytes) -> Any:
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
    messages[-1]["more_body"] = False
    return receiving(*messages)


async def routed(headers: list[tuple[bytes, bytes]], pieces: list[bytes], hold: Hold) -> Any:
    return await read_routed(pieces_of(*pieces), headers, 10**6, Turns(), hold)


async def by_name(headers: list[tuple[bytes, bytes]], pieces: list[bytes], hold: Hold) -> Any:
    return await read_beginning(
        pieces_of(*pieces), headers, None, whole_limit=10**6, turns=Turns(), hold=hold
    )


@pytest.mark.parametrize("read", [routed, by_name])
async def test_each_way_of_reading_a_body_is_bounded(read: Read) -> None:
    json = [b'{"a":"', b"x" * 900, b'"}']
    packed = gzip.compress(b'{"a":"' + b"x" * 100_000 + b'"}')
    for headers, pieces in (
        ([], json),
        ([(b"content-length", b"908")], json),
        ([(b"content-encoding", b"gzip"), (b"content-length", b"142")], [packed]),
    ):
        budget = BodyBudget(1000)
        with pytest.raises(TooManyBodies):
            await read(headers, pieces, partial(budget.hold, "request", 1))
        await read(headers, pieces, partial(BodyBudget(10**6).hold, "request", 1))
    # It should take a body of one piece, which the connection held before, whatever is free.
    await read([], [b'{"a":"' + b"x" * 900 + b'"}'], partial(BodyBudget(0).hold, "request", 1))


async def test_pieces_of_an_upload_wait_at_the_client_when_no_more_may_be_held() -> None:
    budget = BodyBudget(100)
    hold = partial(budget.hold, "request", 1)
    upload = Upload(b"x" * 60, [(b"content-length", b"1000")], limit=10**6, hold=hold)
    assert not upload._may_gather()
    budget = BodyBudget(1000)
    upload = Upload(b"x" * 60, [], limit=10**6, hold=partial(budget.hold, "request", 1))
    await upload.put(b"y" * 100, is_last=False)
    assert budget._free_bytes == 940
    assert await upload.take() == b"x" * 60
    assert await upload.take() == b"y" * 100
    assert budget._free_bytes == 1000
