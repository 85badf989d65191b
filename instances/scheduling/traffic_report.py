"""Traffic reports: the requests in flight and waiting, by web process.

A web process counts its requests in memory (the hot path calls no broker) and reports the counts a
few times a second, with the revision of the instances that its routing table was built from. The
supervisor reads the reports to drain an instance (drained: every living web process has seen the
shutdown and has no request in flight to it), to stop idle instances, and to preempt instances for
waiting requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import redis

REPORT_KEY = "llamactl:web:{web_id}"
REPORT_EXPIRES_SECONDS = 5


@dataclass(frozen=True)
class WebReport:
    """One web process's traffic at one moment. Times are unix seconds."""

    web_id: str
    revision: int
    """Revision of the instances that the routing table was built from."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Instance name → requests in flight; instances without any are left out."""
    last_used: dict[str, float] = field(default_factory=dict)
    """Instance name → time of the last byte that was sent for a user."""
    looking: dict[str, int] = field(default_factory=dict)
    """Instance name → requests in flight that do not use the model: health checks, metrics."""
    waiting: dict[str, dict[str, tuple[int, float]]] = field(default_factory=dict)
    """Instance name → id of a key → number of waiting requests, start of the oldest wait."""

    not_evicting: list[str] = field(default_factory=list)
    """Instances for whose waiting requests no other instance may be stopped."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


_FIELDS = frozenset(each.name for each in fields(WebReport))


def read_reports(client: redis.Redis) -> list[WebReport]:
    """Read the reports of the living web processes. Raises redis.RedisError."""
    keys = list(client.scan_iter(REPORT_KEY.format(web_id="*"), count=1000))
    documents = client.mget(keys) if keys else []
    return [_from_json(document) for document in documents if document]


def _from_json(document: bytes | str) -> WebReport:
    # While llamactl is updated, web processes of two versions may report.
    values = {key: value for key, value in json.loads(document).items() if key in _FIELDS}
    return WebReport(**values)


def is_drained(reports: Iterable[WebReport], name: str, revision: int) -> bool:
    """Whether no web process has a request to the instance in flight, or may still begin one."""
    return all(report.revision >= revision and not report.in_flight.get(name) for report in reports)


class Traffic:
    """All reports of one moment, by instance. Times are on the clock of ``clock_now``."""

    def __init__(
        self, reports: Sequence[WebReport], *, unix_now: float = 0.0, clock_now: float = 0.0
    ) -> None:
        """``clock_now``: the caller's monotonic clock at ``unix_now``."""
        self.reports = tuple(reports)
        self._unix_now = unix_now
        self.read_at = clock_now

    def has_seen(self, revision: int) -> bool:
        """Whether every living web process has seen this revision of the instances."""
        return all(report.revision >= revision for report in self.reports)

    def in_use(self, name: str) -> int:
        """Count the requests in flight that use the model."""
        return sum(
            max(0, report.in_flight.get(name, 0) - report.looking.get(name, 0))
            for report in self.reports
        )

    def names_in_use(self) -> set[str]:
        """Return the instances that requests use now."""
        return {name for report in self.reports for name in report.in_flight if self.in_use(name)}

    def waiting(self, name: str) -> int:
        """Count the requests that wait for the instance."""
        return sum(
            count for report in self.reports for count, _ in report.waiting.get(name, {}).values()
        )

    def may_evict_for(self, name: str) -> bool:
        """Whether a waiting request may have another instance stopped for its own."""
        return any(
            report.waiting.get(name) and name not in report.not_evicting for report in self.reports
        )

    def demand(self, name: str) -> dict[str, float]:
        """Return key → time since which its oldest request waits for the instance."""
        oldest: dict[str, float] = {}
        for report in self.reports:
            for key, (_, since) in report.waiting.get(name, {}).items():
                oldest[key] = min(since, oldest.get(key, since))
        return {key: self._on_clock(since) for key, since in oldest.items()}

    def last_used(self) -> Mapping[str, float]:
        """Return instance → unix time of the last byte that was sent for a user."""
        latest: dict[str, float] = {}
        for report in self.reports:
            for name, at in report.last_used.items():
                latest[name] = max(at, latest.get(name, at))
        return latest

    def last_byte(self, name: str) -> float:
        """Return the time of the last use, or -inf."""
        at = max((report.last_used.get(name, 0.0) for report in self.reports), default=0.0)
        return self._on_clock(at) if at else float("-inf")

    def _on_clock(self, unix_seconds: float) -> float:
        # After a change of the system clock a unix time may lie in the future.
        return self.read_at - max(0.0, self._unix_now - unix_seconds)
