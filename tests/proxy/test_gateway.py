"""The routing table against a real database and a real broker, with and without its events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from blockbuster import BlockBuster
from django.utils import timezone

from instances import lifecycle, node_drain
from instances.models import Instance
from instances.scheduling.traffic_report import read_reports
from instances.states import Status
from keys import issuing
from keys.models import InferenceKey
from keys.secrets import digest
from llamactl.core import events
from nodes.errors import NodeDrained
from proxy import gateway as gateways
from proxy.exchange import Exchange
from proxy.gateway import Gateway
from proxy.table import refresh
from proxy.table.table import KeyRule
from tests.support.environment import MANAGEMENT_KEY
from tests.support.until import until_async

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 20
"""How long anything may take before the test fails: a bound, not an expectation."""


async def started(no_blocking_call: BlockBuster) -> Gateway:
    """A gateway whose client libraries may read files while they connect."""
    no_blocking_call.deactivate()
    gateway = Gateway()
    await gateway.start()
    return gateway


@pytest.fixture
async def gateway(no_blocking_call: BlockBuster) -> AsyncIterator[Gateway]:
    gateway = await started(no_blocking_call)
    yield gateway
    await gateway.stop()


@sync_to_async
def create(name: str) -> Instance:
    return lifecycle.create(name, {"backend_options": {"model": "/m.gguf"}}, cause="test")


@sync_to_async
def issue(**fields: Any) -> tuple[InferenceKey, str]:
    return issuing.issue(**{"name": "test", "permission_mode": "allow_all", **fields})


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No refresh by the clock during a test."""
    monkeypatch.setattr(refresh, "POLL_SECONDS", 600)


@pytest.mark.usefixtures("no_clock")
async def test_change_is_in_the_table_by_its_event(broker: None, gateway: Gateway) -> None:
    # The first may be in the table by the refresh that the subscription itself causes.
    for name in ("a", "b", "c"):
        await create(name)
        await until_async(lambda name=name: name in gateway.live.table.targets)  # type: ignore[misc]


async def test_change_whose_event_was_lost_is_in_the_table_all_the_same(
    broker: None, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "publish", lambda change: None)
    # Past the refresh that the subscription itself causes.
    await asyncio.sleep(0.3)
    await create("a")
    await until_async(lambda: "a" in gateway.live.table.targets)


@pytest.mark.usefixtures("no_clock")
async def test_instance_made_a_moment_ago_is_in_a_refreshed_table(
    broker: None, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "publish", lambda change: None)
    await asyncio.sleep(0.3)
    for name in ("a", "b", "c"):
        await create(name)
        await gateway.recheck.refreshed()
        assert name in gateway.live.table.targets


@pytest.mark.usefixtures("no_clock")
async def test_instance_that_runs_since_a_moment_ago_is_found_running(
    broker: None, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await create("a")
    await gateway.recheck.refreshed()
    monkeypatch.setattr(events, "publish", lambda change: None)
    await asyncio.sleep(0.3)

    @sync_to_async
    def run() -> None:
        lifecycle.request_start("a", cause="test")
        instance.refresh_from_db()
        instance.transition(Status.STARTING, cause="test", observed_generation=1)
        instance.transition(Status.RUNNING, cause="test")

    before = gateway.live.table.targets["a"]
    await run()
    assert (await gateway.activator.require_running(before)).is_ready


async def test_refresh_waits_neither_for_writers_nor_for_the_broker(
    broker: None, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked, answered = threading.Event(), asyncio.Event()
    refresher = gateway._refresher
    writers = [asyncio.ensure_future(refresher.in_thread(unlocked.wait)) for _ in range(4)]
    monkeypatch.setattr(gateway, "_report", answered.wait)
    await create("a")
    await asyncio.wait_for(gateway.recheck.refreshed(), 8)  # less than the time limit of a refresh
    assert "a" in gateway.live.table.targets
    unlocked.set()
    answered.set()
    await asyncio.gather(*writers)


async def test_changed_port_is_where_requests_go_from_then_on(
    broker: None, gateway: Gateway
) -> None:
    # The Go program works the address out once, and asks the old port until it is restarted.
    instance = await create("a")
    await until_async(lambda: "a" in gateway.live.table.targets)
    assert gateway.live.table.targets["a"].origin.endswith(f":{instance.port}")
    options = {"backend_options": {"model": "/m.gguf", "port": instance.port + 7}}
    await sync_to_async(lifecycle.update)("a", options, cause="test")
    moved = f":{instance.port + 7}"
    await until_async(lambda: gateway.live.table.targets["a"].origin.endswith(moved))


async def test_revoked_key_is_gone_and_a_narrowed_one_narrowed(
    broker: None, gateway: Gateway
) -> None:
    instance = await create("a")
    key, plain = await issue()
    found = digest(plain)
    await until_async(lambda: found in gateway.live.table.keys)

    @sync_to_async
    def narrow() -> None:
        key.permission_mode = InferenceKey.PermissionMode.PER_INSTANCE
        key.save()
        key.instances.set([instance])
        issuing.announce_change(key)

    await narrow()
    only = frozenset({instance.pk})
    await until_async(lambda: gateway.live.table.keys[found].instance_ids == only)
    await sync_to_async(issuing.revoke)([key])
    await until_async(lambda: found not in gateway.live.table.keys)


async def test_expired_key_has_no_rule_and_management_keys_always_have_one(
    broker: None, gateway: Gateway
) -> None:
    soon = timezone.now() + timedelta(hours=1)
    _, plain = await issue(expires_at=soon)
    await until_async(lambda: digest(plain) in gateway.live.table.keys)
    table = gateway.live.table
    assert table.rule(digest(plain), soon.timestamp() - 1) is not None
    assert table.rule(digest(plain), soon.timestamp()) is None
    manager = table.rule(digest(MANAGEMENT_KEY), soon.timestamp())
    assert manager is not None
    assert manager.is_management


async def test_status_that_a_supervisor_writes_ends_the_wait_for_it(
    broker: None, gateway: Gateway
) -> None:
    instance = await create("a")
    await until_async(lambda: "a" in gateway.live.table.targets)
    waiting = asyncio.ensure_future(gateway.activator.activate(gateway.live.table.targets["a"]))

    def requested() -> bool:
        return gateway.live.table.targets["a"].generation == 1

    await until_async(requested)

    @sync_to_async
    def observe() -> None:
        instance.refresh_from_db()
        instance.transition(Status.STARTING, cause="test", observed_generation=1)
        instance.transition(Status.RUNNING, cause="test")

    await observe()
    target = await asyncio.wait_for(waiting, SECONDS)
    assert target.is_ready


async def test_report_says_what_is_in_flight_and_is_taken_back_at_the_end(
    broker: None, no_blocking_call: BlockBuster
) -> None:
    gateway = await started(no_blocking_call)

    @sync_to_async
    def reported() -> list[dict[str, int]]:
        reports = read_reports(events.client())
        return [each.in_flight for each in reports if each.web_id == gateway.in_flight.web_id]

    exchange = Exchange(None)
    exchange.instance = "a"
    gateway.in_flight.begin(exchange)
    async with asyncio.timeout(SECONDS):
        while await reported() != [{"a": 1}]:
            await asyncio.sleep(0.01)
    gateway.in_flight.end(exchange)
    await gateway.stop()
    assert await reported() == []


async def test_first_request_that_waits_is_reported_at_once(
    broker: None, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "REPORT_SECONDS", 60)
    await create("a")
    await until_async(lambda: "a" in gateway.live.table.targets)
    await asyncio.sleep(0.3)  # the last report that came by the clock

    @sync_to_async
    def waiting() -> dict[str, Any]:
        found = [
            each
            for each in read_reports(events.client())
            if each.web_id == gateway.in_flight.web_id
        ]
        return dict(found[0].waiting) if found else {}

    task = asyncio.ensure_future(
        gateway.activator.activate(gateway.live.table.targets["a"], KeyRule(5, b"", None))
    )
    async with asyncio.timeout(SECONDS):
        while (await waiting()).get("a", {}).get("5", [0])[0] != 1:
            await asyncio.sleep(0.01)
        task.cancel()
        while await waiting():
            await asyncio.sleep(0.01)


async def test_last_use_of_a_key_is_written_in_a_batch(broker: None, gateway: Gateway) -> None:
    key, _ = await issue()
    gateway.usage.record(key.pk)
    gateway.usage.record(123456)
    await gateway._write_usage()
    await key.arefresh_from_db()
    assert key.last_used_at is not None


@pytest.mark.usefixtures("no_clock")
async def test_request_for_an_instance_of_a_drained_node_starts_nothing(
    broker: None, gateway: Gateway
) -> None:
    await create("gemma")
    await sync_to_async(node_drain.drain)("main")
    await gateway.recheck.refreshed()
    with pytest.raises(NodeDrained):
        await gateway.activator.activate(gateway.live.table.targets["gemma"])
    assert await Instance.objects.filter(desired_state="stopped", generation=0).aexists()


@pytest.mark.usefixtures("no_clock")
async def test_only_llama_cpp_instances_are_taken_for_llama_servers(gateway: Gateway) -> None:
    for name, backend_type in (("llama", "llama_cpp"), ("v", "vllm"), ("m", "mlx_lm")):
        document = {"backend_type": backend_type, "backend_options": {"model": "org/m"}}
        await sync_to_async(lifecycle.create)(name, document, cause="test")
    await gateway.recheck.refreshed()
    targets = gateway.live.table.targets
    assert [name for name, target in targets.items() if target.is_llama_server] == ["llama"]
    assert [name for name, target in targets.items() if target.asks_for_usage] == ["m", "v"]
