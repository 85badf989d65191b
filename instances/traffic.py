"""What the web processes say about the requests they are carrying.

A web process counts its requests in memory (the hot path calls no broker) and reports the counts
here a few times a second, together with the revision of the instances that it has seen. The
supervisor reads the reports to drain an instance: it is drained once every living web process
has seen that it is shutting down and carries no request to it any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import redis

REPORT_KEY = "llamactl:web:{web_id}"
REPORT_EXPIRES_SECONDS = 5


@dataclass(frozen=True)
class WebReport:
    """One web process's traffic at one moment."""

    web_id: str
    revision: int
    """The number of ``Revision`` topic ``instances`` its routing table was built from."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Instance name → requests being carried; instances without any are left out."""
    last_used: dict[str, float] = field(default_factory=dict)
    """Instance name → unix time of the last byte carried."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def read_reports(client: redis.Redis) -> list[WebReport]:
    """The reports of the web processes that are alive. Raises redis.RedisError."""
    keys = list(client.scan_iter(REPORT_KEY.format(web_id="*"), count=1000))
    documents = client.mget(keys) if keys else []
    return [WebReport(**json.loads(document)) for document in documents if document]


def is_drained(reports: Iterable[WebReport], name: str, revision: int) -> bool:
    """Whether no web process carries, or may still begin, a request to the instance."""
    return all(report.revision >= revision and not report.in_flight.get(name) for report in reports)
