"""Usage that is not in the database yet, summed in memory.

The memory is bounded by keys, instances and hours, however long the database is away and however
many requests are counted meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keys.usage.models import SUMS
from keys.usage.request_row import RequestRow

HOUR_SECONDS = 3600
MAX_RECORDS = 1000
"""Requests of one batch that are kept one by one; under a higher load the later ones are left out.

The work for a record is done 500 times a second at most, and not for each of 10,000 requests.
"""
MAX_ROWS = 2000
"""Of one batch: SQLite takes 32,766 parameters a statement, and a row has 13."""

Place = tuple[int, int, str]
"""Start of the hour, id of the key, name of the instance."""


class Sums:
    """The columns ``SUMS`` of one row."""

    __slots__ = SUMS

    requests: int
    errors: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    estimated_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    compute_seconds: float
    waiting_seconds: float

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.estimated_tokens = self.drafted_tokens = self.accepted_tokens = 0
        self.compute_seconds = self.waiting_seconds = 0.0

    def add(self, other: Sums) -> None:
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def values(self) -> list[float]:
        return [getattr(self, name) for name in SUMS]


@dataclass(frozen=True)
class Batch:
    """A part of the usage that is written in one transaction."""

    number: int
    """Grows with each batch of a writer; a batch that is written again keeps its number."""
    sums: Mapping[Place, Sums]
    requests: tuple[RequestRow, ...] = ()


class Recorder:
    """Sums by key and instance since the last batch, and the batches that wait to be written.

    One task writes one batch at a time. A batch whose write failed may be in the database all the
    same, so it stays as it is, and later usage goes into the next one.
    """

    def __init__(self) -> None:
        self.current: dict[tuple[int, str], Sums] = {}
        """Since the last ``settle``, of the present hour."""
        self.requests: list[RequestRow] = []
        self._settled: dict[Place, Sums] = {}
        self._unconfirmed: Batch | None = None
        self._number = 0

    def sums_of(self, key_id: int, instance: str) -> Sums:
        """The sums to add to; made at the first use."""
        found = self.current.get((key_id, instance))
        if found is None:
            found = self.current[key_id, instance] = Sums()
        return found

    @property
    def has_room(self) -> bool:
        """Whether one more request of this batch is kept."""
        return len(self.requests) < MAX_RECORDS

    def settle(self, unix_now: float) -> None:
        """Assign what was counted since the last call to the hour before ``unix_now``.

        Called at every full hour and in between, so each request counts in the hour of its end.
        """
        # A moment before: a call at the full hour itself closes the hour that ends.
        hour = int(unix_now - 0.001) // HOUR_SECONDS * HOUR_SECONDS
        current, self.current = self.current, {}
        for (key_id, instance), added in current.items():
            self._settled.setdefault((hour, key_id, instance), Sums()).add(added)

    def next_batch(self) -> Batch | None:
        """The batch to write now; the same one until ``confirm``. None if there is nothing."""
        if self._unconfirmed is None and (self._settled or self.requests):
            self._number += 1
            places = list(self._settled)[:MAX_ROWS]
            sums = {place: self._settled.pop(place) for place in places}
            self._unconfirmed = Batch(self._number, sums, tuple(self.requests))
            self.requests.clear()
        return self._unconfirmed

    def confirm(self, batch: Batch) -> None:
        """Forget a batch that is in the database."""
        if self._unconfirmed is batch:
            self._unconfirmed = None
