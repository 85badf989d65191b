"""The state of a web process that all requests share: table, connections, counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping

import redis.asyncio
import redis.exceptions
from django.db import DatabaseError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from instances.learned_model import remember_model
from instances.scheduling.traffic_report import REPORT_EXPIRES_SECONDS, REPORT_KEY
from keys.imported import recognise
from keys.last_used import KeyUsage, write_last_used
from llamactl.config import AppConfig, current
from llamactl.core.broker_url import broker_urls
from llamactl.core.change_feed import ChangeFeed
from llamactl.core.repeated_warning import RepeatedWarning
from llamactl.core.turns import Turns
from proxy import cancel
from proxy.activation.activator import Activator
from proxy.body.budget import LARGEST_BODIES, BodyBudget
from proxy.disconnect import DisconnectWatcher
from proxy.early_response import WaitingRequest
from proxy.exchange import Exchange
from proxy.imported_keys import ImportedKeys
from proxy.inflight import InFlight
from proxy.keep_alive import KeepAlive
from proxy.model_discovery import ModelDiscovery
from proxy.observe.counting import count_tokens
from proxy.observe.usage import UsageLog
from proxy.query_answers import QueryAnswers
from proxy.registry import Registry
from proxy.table.live import LiveTable
from proxy.table.recheck import Recheck
from proxy.table.refresh import Refresher
from proxy.upstream import Upstream, UpstreamTimeouts

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
USAGE_SECONDS = 5.0


class Gateway:
    """Made once for each web process; ``start()`` comes before the first request."""

    def __init__(self, feed: ChangeFeed | None = None) -> None:
        """``feed``: passes the changes on that the table hears of."""
        self.feed = feed or ChangeFeed()
        self.live = LiveTable()
        self.in_flight = InFlight()
        self.registry: Registry[WaitingRequest] = Registry()
        self.disconnects = DisconnectWatcher()
        self.turns = Turns()
        self.usage = KeyUsage()
        self.imported_keys = ImportedKeys(
            self.live, self._remember_imported, lambda: self._refresher.request_refresh()
        )
        self.usage_log = UsageLog(self.in_flight.web_id)
        self.observers: list[Callable[[Exchange], None]] = [count_tokens, self.usage_log.observe]
        """Called with each exchange that has ended, in this order."""
        self.is_started = False
        self._starting: asyncio.Lock | None = None
        self._report_due = asyncio.Event()
        # A supervisor that drains an instance waits for reports by the new table.
        self.live.listen(lambda before: self._report_due.set())
        self._tasks: list[asyncio.Task[None]] = []
        self._unsent_reports = RepeatedWarning(logger, "traffic reports")
        self._unwritten_usage = RepeatedWarning(logger, "last use")

    async def start(self) -> None:
        """Build the table and open the connections; a second call does nothing.

        Called by the server's lifespan, or by the first request under a server without lifespan.
        Raises DatabaseError if the database can't be read.
        """
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self.is_started:
                return
            self.config: AppConfig = current()
            self.max_body_bytes = self.config.server.max_body_mib * 2**20
            self.bodies = BodyBudget(LARGEST_BODIES * self.max_body_bytes)
            url = broker_urls(self.config).redis
            self._broker = redis.asyncio.Redis.from_url(
                url, socket_timeout=2, retry=Retry(NoBackoff(), 0)
            )
            self._answers = QueryAnswers(self.live, self.registry, self.in_flight, self._broker)
            self._refresher = Refresher(self.live, url, self._answers.receive, self.feed)
            self.recheck = Recheck(self.live, self._refresher.request_refresh)
            await self._refresher.start()
            # Before the first request: a drain waits only for web processes that have reported.
            await self._report()
            server = self.config.server
            self.upstream = Upstream(
                UpstreamTimeouts(server.upstream_first_byte_timeout, server.upstream_idle_timeout)
            )
            self.activator = Activator(
                self.live,
                self._refresher.request_start,
                self.recheck,
                timeout_seconds=self.config.instances.on_demand_start_timeout,
                on_change=self._report_due.set,
            )
            self.models = ModelDiscovery(self.live, self.upstream, self._remember_model)
            self.models.start()
            self._tasks = [
                asyncio.create_task(work, name=name) for name, work in self._background_work()
            ]
            self.usage_log.keep_requests(self.config.requests.keep)
            self.is_started = True

    def _background_work(self) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        in_thread = self._refresher.in_thread
        days = self.config.usage.retention_days
        yield "traffic-reports", self._report_regularly()
        yield "key-usage", self._write_usage_regularly()
        yield "usage", self.usage_log.run(in_thread)
        yield "expired-usage", self.usage_log.remove_expired(in_thread, days)
        after_seconds = self.config.server.keepalive_after
        if after_seconds:
            keep_alive = KeepAlive(
                self.registry, self.live, self.turns, after_seconds=after_seconds
            )
            yield "keep-alive", keep_alive.run()

    async def stop(self) -> None:
        if not self.is_started:
            return
        self.is_started = False
        await cancel.cancel_and_wait(self._tasks)
        await self.models.stop()
        await self._write_usage()
        await self.usage_log.write(self._refresher.in_thread)
        await self.imported_keys.stop()
        await self._refresher.stop()
        await self.upstream.close()
        try:
            await self._broker.delete(REPORT_KEY.format(web_id=self.in_flight.web_id))
        except (redis.exceptions.RedisError, OSError):
            logger.debug("the last traffic report expires by itself")
        await self._broker.aclose()

    async def load(self, name: str, cause: str, *, may_evict: bool) -> None:
        """Request the start of an instance, as the management API does. Raises as it does."""
        await self._refresher.request_start(name, cause, may_evict=may_evict)

    async def unload(self, name: str, cause: str) -> None:
        """Request the stop of an instance, as the management API does. Raises as it does."""
        await self._refresher.request_stop(name, cause)

    def notify(self, exchange: Exchange) -> None:
        """Hand an exchange that has ended to the observers."""
        self.registry.end(exchange)
        for observer in self.observers:
            observer(exchange)

    async def _remember_model(self, pk: int, generation: int, facts: Mapping[str, object]) -> None:
        await self._refresher.in_thread(lambda: remember_model(pk, generation, facts))

    async def _remember_imported(self, argon2: str, key: str) -> None:
        await self._refresher.in_thread(lambda: recognise(argon2, key))

    async def _report(self) -> None:
        """Publish the in-flight and waiting requests, with the table revision they are based on."""
        revision = self.live.table.revision
        if self.is_started:
            waiters = self.activator.waiters
            report = self.in_flight.report(revision, waiters.report(), waiters.not_evicting())
        else:
            report = self.in_flight.report(revision)
        try:
            await self._broker.set(
                REPORT_KEY.format(web_id=report.web_id),
                report.to_json(),
                ex=REPORT_EXPIRES_SECONDS,
            )
        except (redis.exceptions.RedisError, OSError) as error:
            self._unsent_reports.failed("not sent: %s", error)
        except Exception:
            self._unsent_reports.failed("not sent", exc_info=True)
        else:
            self._unsent_reports.succeeded()

    async def _report_regularly(self) -> None:
        while True:
            self._report_due.clear()
            await self._report()
            try:
                # At once for the first waiter of an instance, for which the scheduler may have to
                # preempt another instance, and for a new table, for which a drain may wait.
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._report_due.wait()
            except TimeoutError:
                pass

    async def _write_usage_regularly(self) -> None:
        while True:
            await asyncio.sleep(USAGE_SECONDS)
            await self._write_usage()

    async def _write_usage(self) -> None:
        taken = self.usage.take()
        if not taken:
            return
        try:
            await self._refresher.in_thread(lambda: write_last_used(taken))
        except DatabaseError as error:
            self.usage.restore(taken)
            self._unwritten_usage.failed("of %d keys not written yet: %s", len(taken), error)
        except Exception:
            self._unwritten_usage.failed("of %d keys not written", len(taken), exc_info=True)
        else:
            self._unwritten_usage.succeeded()
