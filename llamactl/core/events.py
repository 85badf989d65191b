"""Change events: one process notifies the others of a change at once.

An event may be lost. ``Revision`` counts the same changes in the database, and each listener also
reads the count once a second.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from typing import TypedDict

import redis
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from llamactl.config import current
from llamactl.core.broker_url import broker_urls
from llamactl.models import Revision, Topic

logger = logging.getLogger(__name__)

CHANNEL = "llamactl:changes"


class ChangeEvent(TypedDict):
    """The payload on ``CHANNEL``: the topic of the change, and a name ("" for several names)."""

    topic: str
    name: str


def announce(topic: Topic, name: str) -> None:
    """Count a change of ``name`` in this transaction, and publish it on commit."""
    Revision.bump(topic)
    transaction.on_commit(lambda: publish({"topic": topic.value, "name": name}))


def publish(change: ChangeEvent) -> None:
    """Send the event. A failure is a warning: listeners read the database within a second."""
    try:
        client().publish(CHANNEL, json.dumps(change))
    except (redis.RedisError, OSError) as error:
        logger.warning("change event of %s not sent: %s", change["name"], error)


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """Return this process's connection pool to the broker, for events and small shared state."""
    return redis.Redis.from_url(
        broker_urls(current()).redis,
        socket_timeout=2.0,
        socket_connect_timeout=0.5,
        # The default retries last for seconds, while a request or a drain waits.
        retry=Retry(NoBackoff(), 0),
    )
