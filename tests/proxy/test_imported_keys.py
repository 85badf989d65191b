"""Recognition of imported keys: once each, bounded, and never at the cost of a right key."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from keys.argon2id import has_go_shape, is_argon2id, matches
from keys.secrets import digest
from proxy.errors import KeyNotCompared
from proxy.imported_keys import ImportedKeys
from proxy.table.live import LiveTable
from proxy.table.table import KeyRule, RoutingTable
from tests.support.go_llamactl import go_keys
from tests.support.until import WAIT_SECONDS, until_async

RIGHT = "llamactl-" + "a" * 64
GO_HASH = (
    "$argon2id$v=19$m=65536,t=1,p=4$DF+ueHdTi9NSTLzbVANIMw"
    "$km41yoTGZWRmUey1bk1MZE6uWFAeGa/JOPzRJ4zK9OM"
)


def wrong(number: int) -> str:
    return f"llamactl-{number:064x}"


class Comparisons:
    """A queue of keys whose comparisons take no time, and what was compared."""

    def __init__(self, *hashes: str, wait_seconds: float = 10.0, key_seconds: float = 0) -> None:
        self.live = LiveTable()
        self.live.replace(RoutingTable(imported_hashes=hashes))
        self.made: list[tuple[str, str]] = []
        self.at: list[float] = []
        self.stored: list[tuple[str, str]] = []
        self.running = self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()
        self.keys = ImportedKeys(
            self.live,
            self._store,
            self._refresh,
            compare=self._compare,
            key_seconds=key_seconds,
            wait_seconds=wait_seconds,
        )

    def _compare(self, argon2: str, key: str) -> bool:
        self.running += 1
        self.most_at_once = max(self.running, self.most_at_once)
        self.made.append((argon2, key))
        self.at.append(time.monotonic())
        assert self.gate.wait(WAIT_SECONDS)
        self.running -= 1
        return (argon2, key) == ("right", RIGHT)

    async def _store(self, argon2: str, key: str) -> None:
        self.stored.append((argon2, key))

    async def _refresh(self) -> None:
        left = tuple(
            each for each in self.live.table.imported_hashes if (each, RIGHT) not in self.stored
        )
        known = {digest(key): KeyRule(1, digest(key), None) for _, key in self.stored}
        self.live.replace(RoutingTable(keys=known, imported_hashes=left))


@pytest.fixture
async def comparisons() -> AsyncIterator[Comparisons]:
    made = Comparisons("other", "right")
    yield made
    await made.keys.stop()


async def test_a_right_key_is_stored_and_compared_no_more(comparisons: Comparisons) -> None:
    assert await comparisons.keys.recognise(RIGHT)
    assert comparisons.stored == [("right", RIGHT)]
    assert comparisons.live.table.imported_hashes == ("other",)


async def test_a_wrong_key_is_compared_once(comparisons: Comparisons) -> None:
    for _ in range(3):
        assert not await comparisons.keys.recognise(wrong(1))
    assert comparisons.made == [("other", wrong(1)), ("right", wrong(1))]


async def test_a_wrong_key_is_compared_with_a_later_import(comparisons: Comparisons) -> None:
    assert not await comparisons.keys.recognise(wrong(1))
    comparisons.live.replace(RoutingTable(imported_hashes=("other", "right", "new")))
    assert not await comparisons.keys.recognise(wrong(1))
    assert comparisons.made[2:] == [("new", wrong(1))]


@pytest.mark.parametrize(
    "key",
    ["", "llamactl-", "sk-abc", RIGHT[:-1], RIGHT + "a", RIGHT.upper(), RIGHT + "\n", "é" * 73],
)
async def test_a_key_of_another_shape_is_never_compared(comparisons: Comparisons, key: str) -> None:
    assert not await comparisons.keys.recognise(key)
    assert comparisons.made == []


async def test_without_imported_keys_nothing_is_compared() -> None:
    comparisons = Comparisons()
    assert not await comparisons.keys.recognise(RIGHT)
    assert comparisons.made == []


async def test_requests_with_one_key_share_its_comparison(comparisons: Comparisons) -> None:
    assert all(await asyncio.gather(*(comparisons.keys.recognise(RIGHT) for _ in range(50))))
    assert len(comparisons.made) == 2


async def test_one_comparison_at_a_time_and_a_pause_after_each_key() -> None:
    comparisons = Comparisons("a", "b", key_seconds=0.05)
    await asyncio.gather(*(comparisons.keys.recognise(wrong(number)) for number in range(3)))
    await comparisons.keys.stop()
    assert comparisons.most_at_once == 1
    assert [key for _, key in comparisons.made[::2]] == [key for _, key in comparisons.made[1::2]]
    first, second, third = comparisons.at[::2]
    # The loop's clock may fire a moment early.
    assert min(second - first, third - second) > 0.04


async def test_a_thousand_wrong_keys_keep_no_right_one_out() -> None:
    comparisons = Comparisons("right", "other")
    wrong_ones = [
        asyncio.create_task(comparisons.keys.recognise(wrong(number))) for number in range(1000)
    ]
    right = asyncio.create_task(comparisons.keys.recognise(RIGHT))
    outcomes = await asyncio.gather(*wrong_ones, return_exceptions=True)
    # Too many wait: like most of the others it is told to come again, and not that it is wrong.
    with pytest.raises(KeyNotCompared) as told:
        await right
    assert told.value.retry_after is not None
    assert {type(outcome) for outcome in outcomes} == {bool, KeyNotCompared}
    assert True not in outcomes
    assert await comparisons.keys.recognise(RIGHT)
    await until_async(lambda: not comparisons.keys._queue, "all are compared")
    await comparisons.keys.stop()


async def test_a_key_that_another_process_recognised_is_not_wrong() -> None:
    comparisons = Comparisons("right")
    queued = asyncio.create_task(comparisons.keys.recognise(RIGHT))
    comparisons.stored.append(("right", RIGHT))
    await asyncio.sleep(0)
    await comparisons._refresh()
    assert await queued
    assert comparisons.made == []
    await comparisons.keys.stop()


async def test_a_key_that_is_sent_again_overtakes_those_that_are_not() -> None:
    comparisons = Comparisons("right", wait_seconds=0)
    comparisons.gate.clear()
    for key in [*map(wrong, range(10)), RIGHT, *map(wrong, range(10, 500)), RIGHT]:
        with pytest.raises(KeyNotCompared):
            await comparisons.keys.recognise(key)
    comparisons.gate.set()
    await until_async(lambda: bool(comparisons.stored), "the right key is stored")
    await comparisons.keys.stop()
    # After the key that was being compared, and the oldest one.
    assert comparisons.made.index(("right", RIGHT)) <= 3


async def test_the_oldest_key_comes_to_its_turn_among_keys_that_are_sent_again() -> None:
    comparisons = Comparisons("right", wait_seconds=0)
    comparisons.gate.clear()
    for key in [wrong(0), RIGHT, *(wrong(number) for number in range(1, 100) for _ in range(3))]:
        with pytest.raises(KeyNotCompared):
            await comparisons.keys.recognise(key)
    comparisons.gate.set()
    await until_async(lambda: bool(comparisons.stored), "the right key is stored")
    await comparisons.keys.stop()
    assert comparisons.made.index(("right", RIGHT)) <= 3


async def test_a_failure_to_store_is_no_refusal_and_ends_nothing() -> None:
    comparisons = Comparisons("right")
    failures = ["the database is away"]

    async def store(argon2: str, key: str) -> None:
        if failures:
            raise OSError(failures.pop())
        comparisons.stored.append((argon2, key))

    comparisons.keys._remember = store
    with pytest.raises(KeyNotCompared):
        await comparisons.keys.recognise(RIGHT)
    assert await comparisons.keys.recognise(RIGHT)
    await comparisons.keys.stop()


async def test_a_disconnected_client_leaves_the_comparison_to_the_others(
    comparisons: Comparisons,
) -> None:
    gone = asyncio.create_task(comparisons.keys.recognise(RIGHT))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await comparisons.keys.recognise(RIGHT)


def test_the_go_programs_own_hash_matches_its_key_alone() -> None:
    keys = go_keys()
    assert is_argon2id(GO_HASH)
    assert matches(GO_HASH, keys["all"])
    assert not matches(GO_HASH, keys["two"])
    assert all(has_go_shape(key) for key in keys.values())
    assert not has_go_shape("llamactl-mgmt-" + "a" * 64)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "$2b$12$abcdefghijklmnopqrstuv",
        GO_HASH.replace("argon2id", "argon2i"),
        GO_HASH.replace("m=65536", "m=4194304"),
        GO_HASH.replace("t=1", "t=1000"),
        GO_HASH.replace("p=4", "p=4000"),
        GO_HASH + "A" * 200,
    ],
)
def test_a_hash_at_another_cost_is_refused(encoded: str) -> None:
    assert not is_argon2id(encoded)
