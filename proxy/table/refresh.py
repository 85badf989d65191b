"""Keeping the routing table true: built from the database, replaced on every change.

The only module of the proxy that knows the models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import redis.asyncio
import redis.exceptions
from django.conf import settings
from django.db import DatabaseError, close_old_connections

from instances import lifecycle
from instances.backends import backend_for
from instances.launch import effective_api_key
from instances.models import Instance
from instances.states import ON_DEMAND, DesiredState, Status
from keys.models import InferenceKey
from keys.secrets import backend_key, digest, management_keys
from llamactl.config import AppConfig, current
from llamactl.core.errors import LlamactlError
from llamactl.core.events import CHANNEL
from llamactl.middleware.response_headers import encoded
from llamactl.models import Revision, Topic
from nodes.models import Node
from proxy import cancel
from proxy.table.load_times import load_seconds, with_load_times
from proxy.table.table import KeyRule, RoutingTable, Target

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""How long a change may go unseen when the event that told of it was lost."""
LOOK_SECONDS = 10.0
"""How long a look at the database may take, before the table has to do as it is."""
PAUSE_SECONDS = 0.05
"""Between two looks at the database, however many ask for one: wrong keys must not load it."""

T = TypeVar("T")


class LiveTable:
    """The current table, and the moment it is replaced."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self._replaced: asyncio.Event | None = None
        self._listeners: list[Callable[[RoutingTable], None]] = []

    def listen(self, listener: Callable[[RoutingTable], None]) -> None:
        """Call ``listener`` with the table before, whenever it has been replaced."""
        self._listeners.append(listener)

    def replace(self, table: RoutingTable) -> None:
        before, self.table = self.table, table
        for listener in self._listeners:
            listener(before)
        if self._replaced is not None:
            self._replaced.set()
            self._replaced = None

    async def changed(self) -> None:
        """Return when the table is next replaced."""
        if self._replaced is None:
            self._replaced = asyncio.Event()
        await self._replaced.wait()


class Refresher:
    """Two tasks: one listens for change events, one looks at the revisions once a second."""

    def __init__(self, live: LiveTable, broker_url: str) -> None:
        self._live = live
        self._broker_url = broker_url
        self._numbers: dict[str, int] = {}
        self._hint = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._next_look: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        # Few threads, so few database connections; the event loop itself never waits for one. And
        # who reads the table does not wait for those who write, which wait for the database's lock.
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="table")
        self._writing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="wishes")

    async def start(self) -> None:
        """Build the first table, then keep it fresh. Raises DatabaseError."""
        await self.refresh()
        self._tasks = [
            asyncio.create_task(self._listen(), name="table-events"),
            asyncio.create_task(self._check(), name="table-check"),
        ]

    async def stop(self) -> None:
        await cancel.end(self._tasks)
        self._reading.shutdown(wait=False)
        self._writing.shutdown(wait=False)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a function that writes to the database, off the event loop."""
        return await _run(self._writing, function)

    async def look(self) -> None:
        """Return once the table is no older than this call, the look failed, or took too long.

        For what the table doesn't know: a key or an instance made a moment ago, whose event has
        not arrived yet, is not to be refused.
        """
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().create_future()
        self._hint.set()
        await asyncio.wait((self._next_look,), timeout=LOOK_SECONDS)

    async def request_start(self, name: str) -> int:
        """Wish the instance to run; returns the generation to wait for."""
        instance = await self.in_thread(lambda: lifecycle.request_start(name, cause=ON_DEMAND))
        await self.refresh()
        return instance.generation

    async def refresh(self) -> None:
        """Replace the parts of the table whose revision has moved."""
        # One at a time: a slower, older read must not replace a newer table.
        async with self._refreshing:
            await self._refresh()

    async def _refresh(self) -> None:
        numbers = await _run(self._reading, Revision.numbers)
        table = self._live.table
        if self._is_behind(numbers, Topic.INSTANCES):
            targets = with_load_times(await _run(self._reading, read_targets), table.targets)
            revision = numbers.get(Topic.INSTANCES.value, 0)
            table = replace(table, targets=MappingProxyType(targets), revision=revision)
        if self._is_behind(numbers, Topic.KEYS):
            rules = await _run(self._reading, read_rules)
            table = replace(table, keys=MappingProxyType(rules))
        if table is not self._live.table:
            self._numbers = numbers
            self._live.replace(table)

    def _is_behind(self, numbers: dict[str, int], topic: Topic) -> bool:
        return self._numbers.get(topic.value) != numbers.get(topic.value, 0)

    async def _check(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()
            awaited, self._next_look = self._next_look, None
            try:
                await self.refresh()
            except DatabaseError as error:
                # The table in memory goes on serving; the next look may succeed.
                logger.warning("routing table not refreshed: %s", error)
            except Exception:
                # Whatever it is, a table that is never looked at again would be worse.
                logger.exception("routing table not refreshed")
            finally:
                if awaited is not None:
                    awaited.set_result(None)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _listen(self) -> None:
        while True:
            client = redis.asyncio.Redis.from_url(self._broker_url)
            try:
                async with client.pubsub() as events:
                    await events.subscribe(CHANNEL)
                    # What was published while nobody listened is not sent again.
                    self._hint.set()
                    async for message in events.listen():
                        if message["type"] == "message":
                            self._hint.set()
            except (redis.exceptions.RedisError, OSError) as error:
                logger.warning("no change events (checking once a second instead): %s", error)
            except Exception:
                logger.exception("no change events (checking once a second instead)")
            finally:
                await client.aclose()
            await asyncio.sleep(CHECK_SECONDS)


async def _run(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, _with_fresh_connection, function)


def _with_fresh_connection(function: Callable[[], T]) -> T:
    close_old_connections()
    return function()


def read_targets() -> dict[str, Target]:
    """Every instance by name, as the table holds it."""
    config = current()
    targets = {}
    for instance in Instance.objects.select_related("node"):
        try:
            targets[instance.name] = to_target(instance, config)
        except (LlamactlError, LookupError, TypeError, ValueError):
            # One row that can't be read must not keep all the others, and the keys, from being.
            logger.exception("its options can't be read", extra={"instance": instance.name})
    return targets


def to_target(instance: Instance, config: AppConfig) -> Target:
    options = instance.parsed_options
    backend = backend_for(options.backend_type)
    derived = backend_key(instance.pk, settings.SECRET_KEY)
    key = effective_api_key(options, derived)
    backend_config = backend.config_section(config)
    host = _host(backend.connect_host(options.backend_options), instance.node)
    return Target(
        id=instance.pk,
        name=instance.name,
        created=int(instance.created_at.timestamp()),
        origin=f"http://{host}:{instance.port}",
        authorization=f"Bearer {key}" if key else None,
        served_model=backend.served_model(options.backend_options, instance.name),
        on_demand_start=options.on_demand_start,
        desired_state=DesiredState(instance.desired_state),
        status=Status(instance.status),
        generation=instance.generation,
        observed_generation=instance.observed_generation,
        failure=instance.failure,
        response_headers=encoded(backend_config.response_headers),
        is_llama_server=backend.is_llama_server,
        requested_by=instance.requested_by,
        queue=instance.queue,
        load_seconds=load_seconds(instance.started_at, instance.ready_at),
    )


def _host(on_node: str, node: Node) -> str:
    """Where web processes reach a backend: an address of its node, in brackets if IPv6."""
    host = node.address or on_node
    return f"[{host}]" if ":" in host else host


def read_rules() -> dict[bytes, KeyRule]:
    """Every key by its digest: those of the database and the management keys."""
    allowed: dict[int, set[int]] = {}
    for key_id, instance_id in InferenceKey.instances.through.objects.values_list(
        "inferencekey_id", "instance_id"
    ):
        allowed.setdefault(key_id, set()).add(instance_id)
    rules = {}
    per_instance = InferenceKey.PermissionMode.PER_INSTANCE
    for pk, stored, mode, expires_at in InferenceKey.objects.values_list(
        "id", "digest", "permission_mode", "expires_at"
    ):
        found = bytes(stored)
        rules[found] = KeyRule(
            id=pk,
            digest=found,
            instance_ids=frozenset(allowed.get(pk, ())) if mode == per_instance else None,
            expires_at=expires_at.timestamp() if expires_at is not None else None,
        )
    for key in management_keys(current()):
        found = digest(key)
        rules[found] = KeyRule(id=None, digest=found, instance_ids=None, is_management=True)
    return rules
