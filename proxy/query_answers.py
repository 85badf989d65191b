"""Answers of this web process to the questions of ``instances.scheduling.web_query``."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
import redis.asyncio
import redis.exceptions

from instances.scheduling.web_query import (
    ANSWERS_EXPIRE_SECONDS,
    ANSWERS_KEY,
    WebAnswer,
    WebQuery,
)
from proxy.inflight import InFlight
from proxy.registry import Registry
from proxy.table.live import LiveTable

logger = logging.getLogger(__name__)

MAX_ANSWERS = 16
"""Answers that are being sent; further questions get none. A management key asks them."""


class QueryAnswers:
    """Answers each question from the registry."""

    def __init__(
        self,
        live: LiveTable,
        registry: Registry[Any],
        in_flight: InFlight,
        broker: redis.asyncio.Redis,
    ) -> None:
        self._live = live
        self._registry = registry
        self._in_flight = in_flight
        self._broker = broker
        self._sending: set[asyncio.Task[None]] = set()

    def receive(self, payload: bytes) -> None:
        """Answer a question from the broker."""
        try:
            query = WebQuery.from_json(payload)
        except (ValueError, KeyError, TypeError):
            logger.warning("a question to the web processes is no JSON of this version")
            return
        if len(self._sending) < MAX_ANSWERS:
            task = asyncio.create_task(self._send(query.id, self.answer(query)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def answer(self, query: WebQuery) -> WebAnswer:
        """Carry out the question; a cancellation takes effect at once."""
        targets = self._live.table.targets
        others = 0
        if query.cancel:
            cancelled = self._registry.cancel(query.cancel, targets)
            requests = [] if cancelled is None else [cancelled]
            for each in requests:
                was_sent = each["phase"] in ("prefill", "streaming")
                others = max(0, self._in_flight.count(each["instance"]) - was_sent)
        else:
            requests = self._registry.documents(targets)
        return {
            "web_id": self._in_flight.web_id,
            "requests": requests,
            "total": len(self._registry),
            "others": others,
        }

    async def _send(self, query_id: str, answer: WebAnswer) -> None:
        key = ANSWERS_KEY.format(query_id=query_id)
        try:
            await self._broker.rpush(key, orjson.dumps(answer))
            await self._broker.expire(key, ANSWERS_EXPIRE_SECONDS)
        except (redis.exceptions.RedisError, OSError) as error:
            logger.warning("an answer to a question to the web processes was not sent: %s", error)
