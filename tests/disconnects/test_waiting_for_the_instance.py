"""Disconnects while a request waits: queued by the scheduler, or during the load of the model."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from instances.states import DesiredState, Status
from tests.disconnects.conftest import Disconnect, until_nothing_is_left
from tests.proxy.conftest import TableGateway
from tests.proxy.sockets.test_uploads import FIELD, FILE, FORM, SIZE
from tests.support.until import until_async
from tests.support.wire import RawBackend, RawClient

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
QUEUE = {"place": 1, "length": 1, "reason": "max_running_instances (1) is reached"}


async def assert_never_sent(
    client: RawClient, backend: RawBackend, gateway: TableGateway, disconnect: Disconnect
) -> None:
    """Disconnect, let the instance become ready, and see that the backend is not asked."""
    ready = replace(
        gateway.live.table.targets["demo"],
        status=Status.RUNNING,
        desired_state=DesiredState.RUNNING,
        generation=2,
        observed_generation=2,
        queue=None,
    )
    disconnect(client)
    await until_nothing_is_left(gateway)
    gateway.lay(ready)
    await asyncio.sleep(0.05)
    assert not backend.connections


async def test_request_that_requested_the_start(
    client: RawClient, backend: RawBackend, gateway: TableGateway, disconnect: Disconnect
) -> None:
    target = gateway.live.table.targets["demo"]
    gateway.lay(replace(target, status=Status.STOPPED, desired_state=DesiredState.STOPPED))
    client.post(CHAT, MODEL)
    await asyncio.wait_for(gateway.start_was_requested.wait(), 10)
    await assert_never_sent(client, backend, gateway, disconnect)


@pytest.mark.parametrize("phase", ["queued", "loading"])
async def test_request_for_an_instance_that_others_have_started(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    disconnect: Disconnect,
    phase: str,
) -> None:
    target = gateway.live.table.targets["demo"]
    if phase == "queued":
        gateway.lay(replace(target, status=Status.STOPPED, observed_generation=0, queue=QUEUE))
    else:
        gateway.lay(replace(target, status=Status.STARTING))
    client.post(CHAT, MODEL)
    await until_async(lambda: bool(gateway.activator.waiters.report()), "the request waiting")
    await assert_never_sent(client, backend, gateway, disconnect)
    assert not gateway.starts


@pytest.mark.parametrize("pieces", [1, 10])
@pytest.mark.parametrize("path", [b"/llama-cpp/demo/tokenize", b"/v1/audio/transcriptions"])
async def test_upload(
    client: RawClient, backend: RawBackend, gateway: TableGateway, path: bytes, pieces: int
) -> None:
    gateway.max_body_bytes = 2 * SIZE
    gateway.lay(replace(gateway.live.table.targets["demo"], status=Status.STARTING))
    client.ask(b"POST " + path, FORM, b"Content-Length: %d" % SIZE)
    client.send(FIELD % b"demo" + FILE)
    for _ in range(pieces):
        client.send(b"x" * 2**15)
        await asyncio.sleep(0.02)
    await until_async(lambda: bool(gateway.activator.waiters.report()), "the upload waiting")
    await assert_never_sent(client, backend, gateway, RawClient.disconnect)
