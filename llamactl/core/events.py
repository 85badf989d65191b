"""Change events: one process notifies the others of a change at once.

An event may be lost. ``Revision`` counts the same changes in the database, and each listener also
reads the count once a second.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any, TypedDict

import redis
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from llamactl.config import current
from llamactl.core.background_sender import PAUSE_SECONDS, BackgroundSender
from llamactl.core.broker_url import broker_urls
from llamactl.models import Revision, Topic

CHANNEL = "llamactl:changes"


broker_messages = BackgroundSender("messages to the broker")
"""Sends change events and wake-ups: a broker that fails one of them would fail the others."""


class ChangeEvent(TypedDict):
    """The payload on ``CHANNEL``: the topic of the change, and a name ("" for several names)."""

    topic: str
    name: str


def announce(topic: Topic, name: str) -> None:
    """Count a change of ``name`` in this transaction, and publish it on commit."""
    Revision.bump(topic)
    transaction.on_commit(lambda: publish({"topic": topic.value, "name": name}))


def publish(change: ChangeEvent) -> None:
    """Send the event from a thread. A failure is a warning: listeners read the database as well."""
    payload = json.dumps(change)
    broker_messages.send(payload, lambda: _send(payload))


def _send(payload: str) -> None:
    client().publish(CHANNEL, payload)


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """Return this process's connection pool to the broker, for events and small shared state."""
    return _Client.from_url(
        broker_urls(current()).redis,
        socket_timeout=2.0,
        socket_connect_timeout=0.5,
        # The default retries last for seconds, while a request or a drain waits.
        retry=Retry(NoBackoff(), 0),
    )


class _Client(redis.Redis):
    """A client that fails at once within ``PAUSE_SECONDS`` of a lost connection.

    Each command to a broker that hangs takes two seconds, and 23 instances that drain would occupy
    all of the supervisor's threads.
    """

    _failed_at = float("-inf")

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if time.monotonic() - self._failed_at < PAUSE_SECONDS:
            raise redis.ConnectionError("the broker did not answer a moment ago")
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError):
            self._failed_at = time.monotonic()
            raise
