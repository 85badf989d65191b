"""ChangeEvent events: how one process tells the others, at once, that something changed.

An event is a hint, never the truth: it may be lost. ``Revision`` counts the same changes in the
database, and whoever listens also looks there once a second.
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
    """The payload on ``CHANNEL``: what kind of thing changed, and its name ("" for many)."""

    topic: str
    name: str


def announce(topic: Topic, name: str) -> None:
    """Say that ``name`` changed: counted in this transaction, published once it commits."""
    Revision.bump(topic)
    transaction.on_commit(lambda: publish({"topic": topic.value, "name": name}))


def publish(change: ChangeEvent) -> None:
    """Send the event; a broker that is away costs listeners up to a second, nothing else.

    Nor does one whose password can't be read: the change is in the database already.
    """
    try:
        client().publish(CHANNEL, json.dumps(change))
    except (redis.RedisError, OSError) as error:
        logger.warning("change event of %s not sent: %s", change["name"], error)


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """This process's connection pool to the broker, for events and small shared state."""
    return redis.Redis.from_url(
        broker_urls(current()).redis,
        socket_timeout=2.0,
        socket_connect_timeout=0.5,
        # Left alone it tries for seconds, while a request or a drain waits for it.
        retry=Retry(NoBackoff(), 0),
    )
