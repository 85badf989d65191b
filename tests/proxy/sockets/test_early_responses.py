"""Early responses on the wire: framing, and the connection after them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from time import perf_counter

import pytest

from instances.states import DesiredState, Status
from proxy.keep_alive import KeepAlive
from tests.proxy.conftest import TableGateway
from tests.support.wire import SECONDS, RawBackend, RawClient

CHAT = b"/v1/chat/completions"
STREAM = b'{"model":"demo","stream":true}'
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
)
REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n"
    b'{"error":{"code":400,"message":"no"}}'
)


async def wait_until_kept_alive(client: RawClient, gateway: TableGateway) -> None:
    """Let the request wait for its instance until its client has the first comment."""
    keep_alive = KeepAlive(
        gateway.registry, gateway.live, gateway.turns, after_seconds=10, every_seconds=0.02
    )
    await asyncio.wait_for(gateway.start_was_requested.wait(), SECONDS)
    keep_alive.look(perf_counter() + 10)


def stop(gateway: TableGateway) -> None:
    target = gateway.live.table.targets["demo"]
    gateway.start_was_requested.clear()
    gateway.lay(replace(target, status=Status.STOPPED, desired_state=DesiredState.STOPPED))


def become_ready(gateway: TableGateway) -> None:
    target = gateway.live.table.targets["demo"]
    gateway.lay(replace(target, status=Status.RUNNING, observed_generation=target.generation))


async def test_comments_and_events_are_one_body_and_the_connection_takes_the_next_request(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    backend.answers = [EVENTS, REFUSAL, EVENTS]
    for ending in (b"data: 1\n\n", b'"code":400}}\n\n', b"data: 1\n\n"):
        stop(gateway)
        client.post(CHAT, STREAM)
        await wait_until_kept_alive(client, gateway)
        # It should be on the wire while the request still waits.
        async with asyncio.timeout(SECONDS):
            head = await client.reader.readuntil(b"\r\n\r\n")
            first = await client.reader.readuntil(b": waiting\n\n\r\n")
        assert b"200 OK" in head
        assert b"transfer-encoding: chunked" in head.lower()
        assert first == b"b\r\n: waiting\n\n\r\n"
        become_ready(gateway)
        async with asyncio.timeout(SECONDS):
            rest = await client.reader.readuntil(b"\r\n0\r\n\r\n")
        assert rest.removesuffix(b"\r\n0\r\n\r\n").endswith(ending)


async def test_http_1_0_gets_them_unframed(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    backend.answers = [EVENTS]
    stop(gateway)
    client.send(
        b"POST " + CHAT + b" HTTP/1.0\r\nAuthorization: Bearer " + client.key,
        b"\r\nContent-Length: %d\r\n\r\n" % len(STREAM) + STREAM,
    )
    await wait_until_kept_alive(client, gateway)
    head = await client.answer(has_body=False)
    assert not head.values(b"transfer-encoding")
    become_ready(gateway)
    async with asyncio.timeout(SECONDS):
        body = await client.reader.read()
    assert body.startswith(b": waiting\n\n")
    assert body.endswith(b"data: 1\n\n")


@pytest.mark.parametrize("path", [CHAT, b"/v1/messages"])
async def test_a_deleted_instance_ends_the_stream_in_order(
    client: RawClient, gateway: TableGateway, path: bytes
) -> None:
    stop(gateway)
    client.post(path, STREAM)
    await wait_until_kept_alive(client, gateway)
    answering = asyncio.ensure_future(client.answer())
    await asyncio.sleep(0.1)
    gateway.lay()
    answer = await answering
    assert (answer.status, answer.is_whole) == (200, True)
    document = json.loads(answer.body.rpartition(b"data: ")[2])
    assert "demo" in document["error"]["message"]
