"""Refresh of the routing table from the database, at change events and by polling.

The only module of the proxy that imports models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import redis.exceptions
from django.conf import settings
from django.db import DatabaseError, close_old_connections

from instances import lifecycle
from instances.backends.registry import backend_for
from instances.launch import effective_api_key
from instances.launch_id import key_part
from instances.model_info import info_of
from instances.models import Instance
from instances.options import InstanceOptions
from instances.request_options import RequestOptions, value_json
from instances.states import ON_DEMAND, DesiredState, Status
from keys.imported import unrecognised_hashes
from keys.models import InferenceKey, KeyPermission
from keys.secrets import backend_key, digest, management_keys
from llamactl.config import AppConfig, current
from llamactl.core.change_feed import ChangeFeed
from llamactl.core.errors import LlamactlError
from llamactl.core.repeated_warning import RepeatedWarning
from llamactl.middleware.response_headers import encoded
from llamactl.models import Revision, Topic
from nodes.models import Node
from proxy import cancel
from proxy.body.request_defaults import RequestDefaults
from proxy.table import change_events
from proxy.table.live import LiveTable
from proxy.table.load_times import load_seconds, with_load_times
from proxy.table.table import KeyRule, Target

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How long a change may go unnoticed whose event was lost."""
REFRESH_TIMEOUT_SECONDS = 10.0
"""How long a request waits for a refresh, before it is decided by the table in memory."""
PAUSE_SECONDS = 0.05
"""Between two refreshes, however many are requested: wrong keys must not load the database."""

T = TypeVar("T")


class Refresher:
    """Two tasks: one listens for change events, one compares the revisions once a second."""

    def __init__(
        self,
        live: LiveTable,
        broker_url: str,
        on_query: Callable[[bytes], None] = lambda payload: None,
        feed: ChangeFeed | None = None,
    ) -> None:
        """``on_query``: called with each question that comes on the same connection as events.

        ``feed``: is told all that this object hears of changes, database and broker.
        """
        self._live = live
        self._on_query = on_query
        self._feed = feed or ChangeFeed()
        self._broker_url = broker_url
        self._revisions: dict[str, int] = {}
        self._is_due = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._next_refresh: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lost_events = RepeatedWarning(logger, "change events")
        self._unread_table = RepeatedWarning(logger, "routing table")
        # Few threads, so few database connections. Reading has a thread of its own, because
        # writing waits for the database's lock.
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="table")
        self._writing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="database-writes")

    async def start(self) -> None:
        """Build the first table, then keep it up to date. Raises DatabaseError."""
        await self.refresh()
        self._tasks = [
            asyncio.create_task(self._listen(), name="table-events"),
            asyncio.create_task(self._poll(), name="table-poll"),
        ]

    async def stop(self) -> None:
        await cancel.cancel_and_wait(self._tasks)
        self._reading.shutdown(wait=False)
        self._writing.shutdown(wait=False)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a function that writes to the database, off the event loop."""
        return await _run(self._writing, function)

    async def request_refresh(self) -> None:
        """Return after the next refresh, whether it succeeded or not, or after the time limit.

        Then the table is no older than this call, unless the database is away. Requests that come
        together share one refresh.
        """
        if self._next_refresh is None:
            self._next_refresh = asyncio.get_running_loop().create_future()
        self._is_due.set()
        await asyncio.wait((self._next_refresh,), timeout=REFRESH_TIMEOUT_SECONDS)

    async def request_start(
        self, name: str, cause: str = ON_DEMAND, *, may_evict: bool = True
    ) -> int:
        """Set the desired state to running; returns the generation to wait for."""
        instance = await self.in_thread(
            lambda: lifecycle.request_start(name, cause=cause, may_evict=may_evict)
        )
        await self.refresh()
        return instance.generation

    async def request_stop(self, name: str, cause: str) -> None:
        """Set the desired state to stopped."""
        await self.in_thread(lambda: lifecycle.request_stop(name, cause=cause))
        await self.refresh()

    async def refresh(self) -> None:
        """Replace the parts of the table with a changed revision."""
        # One refresh at a time: a slower, older read must not replace a newer table.
        async with self._refreshing:
            await self._refresh()

    async def _refresh(self) -> None:
        revisions = await _run(self._reading, Revision.numbers)
        self._feed.refreshed(revisions)
        table = self._live.table
        if self._is_behind(revisions, Topic.INSTANCES):
            targets = with_load_times(await _run(self._reading, read_targets), table.targets)
            revision = revisions.get(Topic.INSTANCES.value, 0)
            table = replace(table, targets=MappingProxyType(targets), revision=revision)
        if self._is_behind(revisions, Topic.KEYS):
            rules = await _run(self._reading, read_rules)
            hashes = await _run(self._reading, unrecognised_hashes)
            table = replace(table, keys=MappingProxyType(rules), imported_hashes=hashes)
        if table is not self._live.table:
            self._revisions = revisions
            self._live.replace(table)

    def _is_behind(self, revisions: dict[str, int], topic: Topic) -> bool:
        return self._revisions.get(topic.value) != revisions.get(topic.value, 0)

    async def _poll(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._is_due.wait()
            except TimeoutError:
                pass
            self._is_due.clear()
            requested, self._next_refresh = self._next_refresh, None
            try:
                await self.refresh()
                self._unread_table.succeeded()
            except DatabaseError as error:
                # The table in memory goes on serving; the next refresh may succeed.
                self._feed.database_lost()
                self._unread_table.failed("not refreshed: %s", error)
            except Exception:
                # A table that is never refreshed again would be worse than any error here.
                self._unread_table.failed("not refreshed", exc_info=True)
            finally:
                if requested is not None:
                    requested.set_result(None)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _listen(self) -> None:
        while True:
            try:
                await change_events.listen(
                    self._broker_url,
                    on_subscribed=self._subscribed,
                    on_change=self._heard,
                    on_query=self._on_query,
                )
            except (redis.exceptions.RedisError, OSError) as error:
                self._feed.broker_lost()
                self._lost_events.failed("none (polling once a second instead): %s", error)
            except Exception:
                self._feed.broker_lost()
                self._lost_events.failed("none (polling once a second instead)", exc_info=True)
            await asyncio.sleep(POLL_SECONDS)

    def _heard(self, payload: bytes) -> None:
        self._feed.heard(payload)
        self._is_due.set()

    def _subscribed(self) -> None:
        self._feed.broker_found()
        self._lost_events.succeeded()
        # An event that was published before the subscription is not sent again.
        self._is_due.set()


async def _run(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    # The log lines of a requested start belong to the request.
    context = copy_context()
    return await loop.run_in_executor(executor, context.run, _with_fresh_connection, function)


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
            # One unreadable row must not keep all other instances, and the keys, out of the table.
            logger.exception("the options can't be read", extra={"instance": instance.name})
    return targets


def to_target(instance: Instance, config: AppConfig) -> Target:
    options = instance.parsed_options
    backend = backend_for(options.backend_type)
    derived = backend_key(instance.pk, key_part(instance.launch_id), settings.SECRET_KEY)
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
        paths=backend.served_paths,
        asks_for_usage=backend.tells_stream_usage_if_asked,
        requested_by=instance.requested_by,
        queue=instance.queue,
        stop_hold_until=instance.stop_hold_until,
        failure_hold_until=instance.failure_hold_until,
        edited_generation=instance.edited_generation,
        aliases=tuple(options.aliases),
        lists_aliases=options.list_aliases,
        request_defaults=_request_defaults(options.request),
        info=info_of(
            instance.options, instance.model_info, backend.traits(options.backend_options)
        ),
        model_file=_model_file(instance, options, config),
        load_seconds=load_seconds(instance.started_at, instance.ready_at),
        started_at=instance.started_at.timestamp() if instance.started_at is not None else None,
        keepalive_blanks=options.keepalive_blanks,
    )


def _model_file(instance: Instance, options: InstanceOptions, config: AppConfig) -> str:
    path = backend_for(options.backend_type).model_path(options.backend_options) or ""
    is_here = instance.node.name == config.local_node and path.startswith("/")
    return path if is_here and path.endswith(".gguf") else ""


def _request_defaults(request: RequestOptions) -> RequestDefaults | None:
    if not request.set and not request.drop:
        return None
    members = {
        name: value_json(name) + b":" + value_json(value) for name, value in request.set.items()
    }
    return RequestDefaults(frozenset(request.drop), MappingProxyType(members))


def _host(on_node: str, node: Node) -> str:
    """The address by which web processes reach a backend, in brackets if IPv6."""
    host = node.address or on_node
    return f"[{host}]" if ":" in host else host


def _narrowed(rule: KeyRule, rows: Sequence[KeyPermission]) -> KeyRule:
    """The rule of a key that opens these instances alone."""
    return replace(
        rule,
        instance_ids=frozenset(row.instance_id for row in rows),
        startable_ids=frozenset(row.instance_id for row in rows if row.can_start),
        evicting_ids=frozenset(row.instance_id for row in rows if row.can_evict),
        stoppable_ids=frozenset(row.instance_id for row in rows if row.can_stop),
    )


def _of_old_secret(rule: KeyRule, old_digest: bytes, valid_until: float) -> KeyRule:
    """The rule of the secret that a key had before it was rotated."""
    if rule.expires_at is not None:
        valid_until = min(valid_until, rule.expires_at)
    return replace(rule, digest=old_digest, expires_at=valid_until)


def read_rules() -> dict[bytes, KeyRule]:
    """Every key by its digest: inference keys of the database, and management keys."""
    rights: dict[int, list[KeyPermission]] = {}
    for permission in KeyPermission.objects.all():
        rights.setdefault(permission.key_id, []).append(permission)
    rules = {}
    per_instance = InferenceKey.PermissionMode.PER_INSTANCE
    for key in InferenceKey.objects.filter(is_blocked=False):
        rule = KeyRule(
            id=key.pk,
            name=key.name,
            digest=bytes(key.digest),
            instance_ids=None,
            expires_at=key.expires_at.timestamp() if key.expires_at is not None else None,
        )
        if key.permission_mode == per_instance:
            rule = _narrowed(rule, rights.get(key.pk, ()))
        rules[rule.digest] = rule
        if key.old_digest is not None and key.old_valid_until is not None:
            old = _of_old_secret(rule, bytes(key.old_digest), key.old_valid_until.timestamp())
            rules[old.digest] = old
    for plain in management_keys(current()):
        found = digest(plain)
        rules[found] = KeyRule(id=None, digest=found, instance_ids=None, is_management=True)
    return rules
