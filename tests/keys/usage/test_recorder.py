"""Sums in memory: their hours, and batches that are written once."""

from __future__ import annotations

from keys.usage.recorder import HOUR_SECONDS, MAX_RECORDS, MAX_ROWS, Recorder
from tests.support.request_row import request_row

NOON = 1_700_000_000 // HOUR_SECONDS * HOUR_SECONDS


def count(recorder: Recorder, requests: int = 1, *, key_id: int = 1, instance: str = "a") -> None:
    recorder.sums_of(key_id, instance).requests += requests


def test_nothing_counted_is_no_batch() -> None:
    recorder = Recorder()
    recorder.settle(NOON)
    assert recorder.next_batch() is None


def test_requests_up_to_the_full_hour_are_of_the_hour_that_ends() -> None:
    recorder = Recorder()
    count(recorder)
    recorder.settle(NOON + HOUR_SECONDS)
    count(recorder, 5)
    recorder.settle(NOON + HOUR_SECONDS + 2)
    batch = recorder.next_batch()
    assert batch is not None
    found = {place: sums.requests for place, sums in batch.sums.items()}
    assert found == {(NOON, 1, "a"): 1, (NOON + HOUR_SECONDS, 1, "a"): 5}


def test_unconfirmed_batch_stays_as_it_is_until_it_is_confirmed() -> None:
    recorder = Recorder()
    count(recorder)
    recorder.settle(NOON + 1)
    first = recorder.next_batch()
    assert first is not None
    count(recorder, 10)
    recorder.settle(NOON + 3)
    assert recorder.next_batch() is first
    assert [sums.requests for sums in first.sums.values()] == [1]
    recorder.confirm(first)
    second = recorder.next_batch()
    assert second is not None
    assert second.number == first.number + 1
    assert [sums.requests for sums in second.sums.values()] == [10]


def test_memory_does_not_grow_with_the_requests_while_nothing_is_written() -> None:
    recorder = Recorder()
    for second in range(500):
        for key_id in range(3):
            count(recorder, key_id=key_id)
        recorder.settle(NOON + second + 1)
    assert len(recorder._settled) == 3
    assert not recorder.current


def test_requests_of_a_batch_are_bounded_and_written_once() -> None:
    recorder = Recorder()
    while recorder.has_room:
        recorder.requests.append(request_row(request_id=str(len(recorder.requests))))
    first = recorder.next_batch()
    assert first is not None
    assert len(first.requests) == MAX_RECORDS
    assert recorder.has_room
    recorder.requests.append(request_row(request_id="later"))
    assert recorder.next_batch() is first
    recorder.confirm(first)
    second = recorder.next_batch()
    assert second is not None
    assert [each.request_id for each in second.requests] == ["later"]


def test_batch_has_a_bounded_number_of_rows() -> None:
    recorder = Recorder()
    for key_id in range(MAX_ROWS + 5):
        count(recorder, key_id=key_id)
    recorder.settle(NOON + 1)
    sizes = []
    while (batch := recorder.next_batch()) is not None:
        sizes.append(len(batch.sums))
        recorder.confirm(batch)
    assert sizes == [MAX_ROWS, 5]
