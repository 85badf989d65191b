"""How many requests this web process carries to each instance, and when it last carried one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Protocol

from instances.scheduling.traffic_report import WebReport

Waiters = Mapping[str, dict[str, tuple[int, float]]]


class Content(Protocol):
    """An answer whose body comes."""

    total_bytes: int
    """How much of it has come so far."""


class Carried:
    """One request on its way, for as long as a ``with`` block lasts; set ``content`` once there is
    an answer.

    Its bytes are counted when a report is made: a clock for each chunk would be work for each.
    """

    __slots__ = ("_in_flight", "_name", "_seen", "content", "is_use")

    def __init__(self, in_flight: InFlight, name: str, *, is_use: bool) -> None:
        self._in_flight = in_flight
        self._name = name
        self.is_use = is_use
        self.content: Content | None = None
        self._seen = 0

    def has_moved(self) -> bool:
        """Whether bytes have come since the last time this was asked."""
        before = self._seen
        self._seen = self.content.total_bytes if self.content is not None else 0
        return self._seen > before

    # Not contextlib's: that takes thrice as long, for each request.

    def __enter__(self) -> Carried:
        self._in_flight.begin(self._name, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._in_flight.end(self._name, self)


class InFlight:
    """Counts in memory; ``report()`` is what the other processes get to see of them."""

    def __init__(self) -> None:
        self.web_id = secrets.token_hex(8)
        self._carried: dict[str, set[Carried]] = {}
        self._last_used: dict[str, float] = {}

    def carrying(self, name: str, *, is_use: bool = True) -> Carried:
        """Count one request to the instance for as long as a ``with`` block lasts.

        Enter it in the same step of the event loop in which the target was read from the table:
        a drain relies on every request that saw the older table being counted. ``is_use``: whether
        it keeps the instance from being idle; to look how it is does not.
        """
        return Carried(self, name, is_use=is_use)

    def begin(self, name: str, carried: Carried) -> None:
        self._carried.setdefault(name, set()).add(carried)

    def end(self, name: str, carried: Carried) -> None:
        carrying = self._carried[name]
        carrying.discard(carried)
        if not carrying:
            del self._carried[name]
        if carried.is_use:
            self._last_used[name] = time.time()

    def count(self, name: str) -> int:
        return len(self._carried.get(name, ()))

    def report(self, revision: int, waiting: Waiters | None = None) -> WebReport:
        now = time.time()
        looking: dict[str, int] = {}
        for name, carrying in self._carried.items():
            for each in carrying:
                if not each.is_use:
                    looking[name] = looking.get(name, 0) + 1
                elif each.has_moved():
                    self._last_used[name] = now
        return WebReport(
            web_id=self.web_id,
            revision=revision,
            in_flight={name: len(carrying) for name, carrying in self._carried.items()},
            last_used=dict(self._last_used),
            looking=looking,
            waiting=dict(waiting or {}),
        )
