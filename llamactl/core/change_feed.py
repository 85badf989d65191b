"""Change events inside one process: the routing table's reader hears them, open pages follow them.

An event may be lost, and a process may hear of a change by the revisions alone. The feed compares
the number of events with the revisions, so that a follower need not read the database to find out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from llamactl.models import Topic

SESSIONS = "sessions"
"""Topic of an ended login session; its name is the digest of the session's key."""
HEALTH = "health"
"""Topic of a database or broker that was lost or found again; it has no name."""
EVENT_SECONDS = 1.0
"""How long an event may come after the revision that counts it."""

Follower = Callable[[str, str], None]


class ChangeFeed:
    """The change events of this process, and since when its sources do not answer.

    A follower is called with topic and name; the name is "" for changes of unknown rows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.database_lost_at: datetime | None = None
        self.broker_lost_at: datetime | None = None
        self._clock = clock
        self._followers: list[Follower] = []
        self._counted: dict[str, int] = {}
        self._behind_since: dict[str, float] = {}

    def follow(self, follower: Follower) -> None:
        """Call ``follower`` at each change from now on, on the thread that hears of it."""
        self._followers.append(follower)

    def leave(self, follower: Follower) -> None:
        self._followers.remove(follower)

    def heard(self, payload: bytes) -> None:
        """Pass a ``ChangeEvent`` on. A payload of another form counts as any change."""
        try:
            event = json.loads(payload)
            topic, name = str(event["topic"]), str(event["name"])
        except (ValueError, LookupError, TypeError, RecursionError):
            topic, name = Topic.INSTANCES.value, ""
        if topic in self._counted:
            self._counted[topic] += 1
        self.notify(topic, name)

    def refreshed(self, revisions: Mapping[str, int]) -> None:
        """Compare the revisions with the events, and pass on what no event told."""
        self.database_found()
        for topic, number in revisions.items():
            counted = self._counted.setdefault(topic, number)
            if counted >= number:
                self._behind_since.pop(topic, None)
                continue
            since = self._behind_since.setdefault(topic, self._clock())
            if self.broker_lost_at is None and self._clock() - since < EVENT_SECONDS:
                continue
            self._counted[topic] = number
            del self._behind_since[topic]
            self.notify(topic, "")

    def notify(self, topic: str, name: str) -> None:
        for follower in tuple(self._followers):
            follower(topic, name)

    def database_lost(self) -> None:
        if self.database_lost_at is None:
            self.database_lost_at = datetime.now(UTC)
            self.notify(HEALTH, "")

    def database_found(self) -> None:
        if self.database_lost_at is not None:
            self.database_lost_at = None
            self.notify(HEALTH, "")

    def broker_lost(self) -> None:
        if self.broker_lost_at is None:
            self.broker_lost_at = datetime.now(UTC)
            self.notify(HEALTH, "")

    def broker_found(self) -> None:
        if self.broker_lost_at is not None:
            self.broker_lost_at = None
            self.notify(HEALTH, "")


process_feed = ChangeFeed()
"""The feed of a web process, which its Gateway fills."""
