"""Everything a web process needs to carry requests, made once and closed once."""

from __future__ import annotations

import asyncio
import logging

import redis.asyncio
import redis.exceptions
from django.db import DatabaseError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from instances.scheduling.traffic_report import REPORT_EXPIRES_SECONDS, REPORT_KEY
from keys.last_used import KeyUsage, write_last_used
from llamactl.config import AppConfig, current
from llamactl.core.broker_url import broker_urls
from proxy import cancel
from proxy.activation.waiting import Waiting
from proxy.disconnect import DisconnectWatcher
from proxy.inflight import InFlight
from proxy.table.refresh import LiveTable, Refresher
from proxy.upstream import Upstream, UpstreamTimeouts

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
USAGE_SECONDS = 5.0


class Gateway:
    """The routing table, the connections, the counts; ``start()`` before the first request."""

    def __init__(self) -> None:
        self.live = LiveTable()
        self.in_flight = InFlight()
        self.hang_ups = DisconnectWatcher()
        self.usage = KeyUsage()
        self.is_started = False
        self._starting: asyncio.Lock | None = None
        self._report_wanted = asyncio.Event()
        # The supervisors want to know by which table it is judged what is in flight.
        self.live.listen(lambda before: self._report_wanted.set())
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Build the table and open the connections; a second call does nothing.

        Called by the server's lifespan, or by the first request under a server without one.
        Raises DatabaseError where the database can't be read.
        """
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self.is_started:
                return
            self.config: AppConfig = current()
            self.max_body_bytes = self.config.server.max_body_mib * 2**20
            url = broker_urls(self.config).redis
            self._broker = redis.asyncio.Redis.from_url(
                url, socket_timeout=2, retry=Retry(NoBackoff(), 0)
            )
            self._refresher = Refresher(self.live, url)
            await self._refresher.start()
            # Before it carries anything: who is not known is not waited for.
            await self._report()
            server = self.config.server
            self.upstream = Upstream(
                UpstreamTimeouts(server.upstream_first_byte_timeout, server.upstream_idle_timeout)
            )
            self.waiting = Waiting(
                self.live,
                self._refresher.request_start,
                self._refresher.look,
                timeout_seconds=self.config.instances.on_demand_start_timeout,
                on_change=self._report_wanted.set,
            )
            self._tasks = [
                asyncio.create_task(self._report_regularly(), name="traffic-reports"),
                asyncio.create_task(self._write_usage_regularly(), name="key-usage"),
            ]
            self.is_started = True

    async def stop(self) -> None:
        if not self.is_started:
            return
        self.is_started = False
        await cancel.end(self._tasks)
        await self._write_usage()
        await self._refresher.stop()
        await self.upstream.close()
        try:
            await self._broker.delete(REPORT_KEY.format(web_id=self.in_flight.web_id))
        except (redis.exceptions.RedisError, OSError):
            logger.debug("the last traffic report expires by itself")
        await self._broker.aclose()

    async def look_again(self) -> None:
        """Make sure that the table is no older than this call; see ``Refresher.look``."""
        await self._refresher.look()

    async def _report(self) -> None:
        """Tell the supervisors what is in flight and waits, and by which table that is judged."""
        waiting = self.waiting.report() if self.is_started else {}
        report = self.in_flight.report(self.live.table.revision, waiting)
        try:
            await self._broker.set(
                REPORT_KEY.format(web_id=report.web_id),
                report.to_json(),
                ex=REPORT_EXPIRES_SECONDS,
            )
        except (redis.exceptions.RedisError, OSError) as error:
            logger.debug("traffic report not sent: %s", error)
        except Exception:
            logger.exception("traffic report not sent")

    async def _report_regularly(self) -> None:
        while True:
            self._report_wanted.clear()
            await self._report()
            try:
                # At once where a first request waits (somebody may have to make room for it), and
                # where the table is new (somebody may be drained).
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._report_wanted.wait()
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
            logger.warning("last use of %d keys not written yet: %s", len(taken), error)
        except Exception:
            logger.exception("last use of %d keys not written", len(taken))
