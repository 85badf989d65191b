"""The queue of requests that wait for an instance, with fair turns between keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest


@dataclass(eq=False, slots=True)
class Waiter:
    """One waiting request."""

    key: str
    """The id of the request's key; empty for a management key, or without one."""
    since: float
    """Unix seconds."""
    may_evict: bool = True
    """Whether another instance may be stopped for this request."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the instance has changed."""


class Waiters:
    """All waiting requests of a web process, by instance."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """``on_change``: called at the first and after the last waiter of an instance.

        Also at the first that may evict.
        """
        self._waiters: dict[str, list[Waiter]] = {}
        self._on_change = on_change

    @contextmanager
    def waiting(self, name: str, key_id: int | None, *, may_evict: bool = True) -> Iterator[Waiter]:
        """A waiter for the instance, for the duration of the block."""
        key = "" if key_id is None else str(key_id)
        waiter = Waiter(key, since=time.time(), may_evict=may_evict)
        waiters = self._waiters.setdefault(name, [])
        is_news = not waiters or (may_evict and not any(each.may_evict for each in waiters))
        waiters.append(waiter)
        if is_news:
            self._on_change()
        try:
            yield waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[name]
                self._on_change()

    def names(self) -> list[str]:
        """The instances with at least one waiter."""
        return list(self._waiters)

    def wake(self, name: str) -> None:
        """Wake the waiters of an instance in fair turns.

        Waiters go on in this order, so many requests of one key do not all get into the backend's
        queue ahead of another key's few.
        """
        for waiter in in_turns(self._waiters.get(name, ())):
            waiter.changed.set()

    def report(self) -> dict[str, dict[str, tuple[int, float]]]:
        """Instance → id of a key → number of waiters, and since when (unix time) the oldest."""
        return {
            name: {
                key: (len(waiters), waiters[0].since) for key, waiters in _by_key(waiters).items()
            }
            for name, waiters in self._waiters.items()
        }

    def not_evicting(self) -> list[str]:
        """The instances for whose waiters no other instance may be stopped."""
        return [
            name
            for name, waiters in self._waiters.items()
            if not any(waiter.may_evict for waiter in waiters)
        ]


def in_turns(waiters: Sequence[Waiter]) -> list[Waiter]:
    """The first waiter of each key, then the second of each, and so on; keys by their oldest."""
    rounds = zip_longest(*_by_key(waiters).values())
    return [waiter for waiter in chain.from_iterable(rounds) if waiter is not None]


def _by_key(waiters: Sequence[Waiter]) -> dict[str, list[Waiter]]:
    found: dict[str, list[Waiter]] = {}
    for waiter in waiters:
        found.setdefault(waiter.key, []).append(waiter)
    return found
