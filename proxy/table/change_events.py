"""Subscription to change events, which ends with an error once its connection is lost.

A connection without a reset (a firewall that drops packets, a broker that hangs) stays silent. So
a silent broker is sent a PING, and has to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis.asyncio
import redis.exceptions
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from instances.scheduling.web_query import CHANNEL as QUERIES
from llamactl.core.events import CHANNEL

SILENCE_SECONDS = 5.0
"""Silence after which the broker is sent a PING, and then the longest wait for the answer."""


async def listen(
    broker_url: str,
    *,
    on_subscribed: Callable[[], None],
    on_change: Callable[[bytes], None],
    on_query: Callable[[bytes], None] = lambda payload: None,
) -> None:
    """Call ``on_change`` with each event and ``on_query`` with each question, without end.

    Raises redis.exceptions.RedisError or OSError once the connection is lost.
    """
    client = redis.asyncio.Redis.from_url(
        broker_url,
        socket_timeout=SILENCE_SECONDS,
        # A connection that redis-py restores by itself misses the events in between.
        retry=Retry(NoBackoff(), 0),
        # redis-py looks its own version up in files, for each connection.
        driver_info=None,
    )
    try:
        async with client.pubsub() as events:
            await events.subscribe(CHANNEL, QUERIES)
            await _receive(events, on_subscribed, on_change, on_query)
    finally:
        await client.aclose()


async def _receive(
    events: PubSub,
    on_subscribed: Callable[[], None],
    on_change: Callable[[bytes], None],
    on_query: Callable[[bytes], None],
) -> None:
    loop = asyncio.get_running_loop()
    is_asked = False
    while True:
        began = loop.time()
        message = await events.get_message(timeout=SILENCE_SECONDS)
        if message is not None:
            is_asked = False
            if message["type"] == "subscribe":
                on_subscribed()
            elif message["type"] == "message":
                if message["channel"] == QUERIES.encode():
                    on_query(message["data"])
                else:
                    on_change(message["data"])
        elif loop.time() - began < SILENCE_SECONDS / 2:
            # redis-py 8.1 takes the kernel's ETIMEDOUT for its own timeout and returns None at
            # once, without a turn of the event loop: a loop around it takes all CPU and memory.
            raise redis.exceptions.ConnectionError("the connection to the broker timed out")
        elif is_asked:
            raise redis.exceptions.ConnectionError(
                f"the broker did not answer PING within {SILENCE_SECONDS:g} s"
            )
        else:
            await events.ping()
            is_asked = True
