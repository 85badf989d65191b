"""Usage of ended exchanges: summed in memory, written to the database every two seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter, time

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError

from keys.usage import writing
from keys.usage.models import ANONYMOUS_HOLDER, MANAGEMENT_HOLDER
from keys.usage.recorder import HOUR_SECONDS, Batch, Recorder, Sums
from llamactl.core.repeated_warning import RepeatedWarning
from proxy.exchange import Exchange, Outcome
from proxy.observe.request_record import record_of
from proxy.observe.tokens import NO_TOKENS, Tokens
from proxy.routes.routes import RouteKind

logger = logging.getLogger(__name__)

BATCH_SECONDS = 2.0
EXPIRY_SECONDS = 3600.0
"""Between two removals of hours and days that are no longer kept."""

# Tuples, the usual one first: members of an enum are found by identity there, and the hash that a
# set needs is a call of Python.
_COUNTED = (RouteKind.INFERENCE, RouteKind.INSTANCE, RouteKind.LLAMA_CPP)
_FAILURES = (Outcome.REFUSED, Outcome.BACKEND_FAILED, Outcome.FAILED)
"""Whatever the status: an early response has begun with 200."""

InThread = Callable[[Callable[[], None]], Awaitable[None]]


class UsageLog:
    """Observer of exchanges, and the task that writes what it has counted."""

    def __init__(self, writer: str, *, clock: Callable[[], float] = time) -> None:
        """``writer``: the id of this web process."""
        self.recorder = Recorder()
        self._kept_records = 0
        self._writer = writer
        self._clock = clock
        self._unwritten = RepeatedWarning(logger, "usage")
        self._writing = asyncio.Lock()

    def observe(self, exchange: Exchange) -> None:
        """Count an exchange that has ended.

        A request without a valid key counts for nobody, and one that only observes its instance
        (a scraper, a page) is no use of it.
        """
        rule, route = exchange.rule, exchange.route
        if rule is None or route is None or route.kind not in _COUNTED or not exchange.is_use:
            return
        key_id = rule.id
        if key_id is None:
            key_id = key_id_of(exchange)
        recorder = self.recorder
        if self._kept_records and recorder.has_room:
            clock_offset = self._clock() - perf_counter()
            recorder.requests.append(record_of(exchange, key_id, clock_offset))
        sums = recorder.sums_of(key_id, exchange.instance)
        sums.requests += 1
        if exchange.status >= 400 or exchange.outcome in _FAILURES:
            sums.errors += 1
        tokens = exchange.tokens
        if tokens is not NO_TOKENS:
            _add_tokens(sums, tokens)
        queued_at, ended_at = exchange.queued_at, exchange.ended_at
        if queued_at is not None and ended_at is not None:
            sent_at = exchange.sent_at
            if sent_at is None:
                sent_at = ended_at
            sums.waiting_seconds += sent_at - queued_at
            sums.compute_seconds += ended_at - sent_at

    def keep_requests(self, number: int) -> None:
        """Record the last requests one by one, up to this number of rows."""
        self._kept_records = number

    async def run(self, in_thread: InThread) -> None:
        """Write what was counted, every two seconds and at every full hour."""
        while True:
            now = self._clock()
            await asyncio.sleep(min(BATCH_SECONDS, HOUR_SECONDS - now % HOUR_SECONDS))
            await self.write(in_thread)

    async def write(self, in_thread: InThread) -> None:
        """Write the batches that wait; a failure keeps them."""
        async with self._writing:
            self.recorder.settle(self._clock())
            while (batch := self.recorder.next_batch()) is not None:
                if not await self._is_written(batch, in_thread):
                    return
                self.recorder.confirm(batch)

    async def _is_written(self, batch: Batch, in_thread: InThread) -> bool:
        """Write a batch; True if it need not be written again."""
        try:
            await in_thread(partial(self._write_batch, batch))
        except (DataError, IntegrityError):
            logger.exception("usage: a batch can't be written, and is dropped")
        except (DatabaseError, InterfaceError) as error:
            self._unwritten.failed("kept in memory, not written yet: %s", error)
            return False
        except Exception:
            self._unwritten.failed("kept in memory, not written yet", exc_info=True)
            return False
        else:
            self._unwritten.succeeded()
        return True

    def _write_batch(self, batch: Batch) -> None:
        writing.write(
            self._writer,
            batch.number,
            batch.sums,
            batch.requests,
            unix_now=self._clock(),
            kept_records=self._kept_records,
        )

    async def remove_expired(self, in_thread: InThread, retention_days: int) -> None:
        """Remove hours and days that are no longer kept, once an hour."""
        while True:
            remove = partial(
                writing.remove_expired, unix_now=self._clock(), retention_days=retention_days
            )
            try:
                await in_thread(remove)
            except Exception as error:
                logger.warning("usage: expired sums not removed: %s", error)
            await asyncio.sleep(EXPIRY_SECONDS)


def key_id_of(exchange: Exchange) -> int:
    """The id of the request's key, or of a holder without one."""
    rule = exchange.rule
    if rule is None or (rule.id is None and not rule.is_management):
        return ANONYMOUS_HOLDER
    return MANAGEMENT_HOLDER if rule.id is None else rule.id


def _add_tokens(sums: Sums, tokens: Tokens) -> None:
    sums.prompt_tokens += tokens.prompt
    sums.cached_tokens += tokens.cached
    sums.completion_tokens += tokens.completion
    sums.drafted_tokens += tokens.drafted
    sums.accepted_tokens += tokens.accepted
    if tokens.is_estimated:
        sums.estimated_tokens += tokens.prompt + tokens.completion
