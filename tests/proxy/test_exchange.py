"""Exchanges as real requests fill them: times, bytes and outcome of each phase."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web

from instances.states import Status
from proxy import forward
from proxy.asgi import ProxyApplication
from proxy.exchange import Exchange, Outcome
from tests.proxy.conftest import ALICE, BOB, CHARLIE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest, AsgiSocket
from tests.support.socket_backend import SocketBackend

CHAT = "/v1/chat/completions"
PROXIED = "/api/v1/instances/demo/proxy/x"
SOCKET = "/api/v1/instances/demo/proxy/ws"


@pytest.fixture
def ended(gateway: TableGateway) -> list[Exchange]:
    """The exchanges that have ended, in order."""
    exchanges: list[Exchange] = []
    gateway.observers.append(exchanges.append)
    return exchanges


def chat(app: ProxyApplication, key: str | None = ALICE, path: str = CHAT) -> AsgiRequest:
    return AsgiRequest(app, path, key=key, json={"model": "demo"})


async def streaming(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    await asyncio.sleep(60)
    return response


async def dying(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    assert request.transport is not None
    request.transport.abort()
    return response


async def test_answered_request_has_all_its_times_in_order_and_its_bytes(
    app: ProxyApplication, backend: Backend, ended: list[Exchange]
) -> None:
    response = await chat(app).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.ANSWERED, 200)
    assert (exchange.instance, exchange.is_use) == ("demo", True)
    assert exchange.rule is not None
    assert exchange.rule.id == 1
    assert exchange.route is not None
    assert exchange.route.rest == CHAT
    times = [
        exchange.received_at,
        exchange.queued_at or 0,
        exchange.sent_at or 0,
        exchange.first_byte_at or 0,
        exchange.ended_at or 0,
    ]
    assert times == sorted(times)
    # It should have no load: the instance was ready.
    assert (exchange.loaded_at, exchange.loading_seconds) == (None, 0)
    assert exchange.bytes_to_backend == len(backend.bodies[0])
    assert exchange.bytes_to_client == len(response.body)
    # It should keep no body: an observer may keep the exchange.
    assert (exchange.response, exchange.upload) == (None, None)


async def test_each_exchange_has_an_id_of_128_random_bits(
    app: ProxyApplication, ended: list[Exchange]
) -> None:
    for _ in range(3):
        await chat(app).finish()
    ids = {exchange.id for exchange in ended}
    assert len(ids) == 3
    assert all(len(bytes.fromhex(each)) == 16 for each in ids)


async def test_wait_for_a_start_is_queue_and_load(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, ended: list[Exchange]
) -> None:
    stopped = make_target(backend.origin, status=Status.STOPPED, observed_generation=0)
    gateway.lay(replace(stopped, load_seconds=0.01))
    request = chat(app).start()
    await asyncio.sleep(0.05)
    gateway.lay(replace(stopped, status=Status.RUNNING, observed_generation=1, load_seconds=0.01))
    await request.finish()
    [exchange] = ended
    assert exchange.outcome is Outcome.ANSWERED
    assert exchange.queued_at is not None
    assert exchange.sent_at is not None
    assert exchange.loaded_at is not None
    assert exchange.queued_at <= exchange.loaded_at <= exchange.sent_at
    assert exchange.loading_seconds == 0.01
    timing = exchange.server_timing().decode()
    queue, load, first_byte = (float(part.partition("dur=")[2]) for part in timing.split(", "))
    assert queue >= 30
    assert load == 10
    assert first_byte >= 0


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        (None, CHAT, 401),
        (CHARLIE, CHAT, 401),
        (BOB, CHAT, 403),
        (ALICE, "/llama-cpp/demo/tools", 404),
        (MANAGER, "/api/v1/instances/nope/proxy/", 404),
    ],
)
async def test_refused_request_was_never_sent(
    app: ProxyApplication, ended: list[Exchange], key: str | None, path: str, status: int
) -> None:
    await chat(app, key, path).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.REFUSED, status)
    assert (exchange.instance, exchange.sent_at) == ("", None)
    assert exchange.ended_at is not None
    assert exchange.bytes_to_client == 0


async def test_document_of_the_proxy_itself_is_an_answer(
    app: ProxyApplication, ended: list[Exchange]
) -> None:
    response = await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.ANSWERED, 200)
    assert exchange.bytes_to_client == len(response.body)


async def test_client_that_disconnects_mid_stream(
    app: ProxyApplication, backend: Backend, ended: list[Exchange]
) -> None:
    backend.handler = streaming
    request = chat(app).start()
    await request.first_chunk()
    request.disconnect()
    await request.finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.CLIENT_DISCONNECTED, 200)
    assert exchange.bytes_to_client == len(b"data: 1\n\n")


async def test_client_that_disconnects_before_the_first_byte_got_no_status(
    app: ProxyApplication, backend: Backend, ended: list[Exchange]
) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    backend.handler = silent
    request = chat(app).start()
    await asyncio.wait_for(backend.began.wait(), 10)
    request.disconnect()
    await request.finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.CLIENT_DISCONNECTED, 0)
    assert exchange.sent_at is not None
    assert exchange.first_byte_at is None


async def test_backend_that_breaks_off_has_failed(
    app: ProxyApplication, backend: Backend, ended: list[Exchange]
) -> None:
    backend.handler = dying
    await chat(app).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.BACKEND_FAILED, 200)


async def test_backend_that_does_not_answer_has_failed(
    app: ProxyApplication,
    gateway: TableGateway,
    ended: list[Exchange],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "CRASH_NOTICE_SECONDS", 0.05)
    gateway.lay(make_target("http://127.0.0.1:1"))
    await chat(app).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.BACKEND_FAILED, 502)
    assert exchange.sent_at is not None


async def test_defect_of_llamactl_is_no_refusal(
    app: ProxyApplication,
    gateway: TableGateway,
    ended: list[Exchange],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.upstream, "open", fail)
    await chat(app).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.FAILED, 500)


async def test_request_that_the_server_cancels(
    app: ProxyApplication, backend: Backend, ended: list[Exchange]
) -> None:
    backend.handler = streaming
    request = chat(app).start()
    await request.first_chunk()
    assert request.task is not None
    request.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request.task
    assert [exchange.outcome for exchange in ended] == [Outcome.CANCELLED]


async def test_websocket_counts_its_messages_until_it_is_closed(
    app: ProxyApplication, sockets: SocketBackend, ended: list[Exchange]
) -> None:
    client = AsgiSocket(app, SOCKET, key=MANAGER)
    assert (await client.next())["type"] == "websocket.accept"
    # Four bytes of ASCII, two of another letter, two of binary.
    for content in ("text", "ü", b"\x00\xff"):
        client.put(content)
        await client.next()
    client.disconnect(code=1000, reason="")
    await client.finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.ANSWERED, 101)
    assert exchange.instance == "demo"
    assert (exchange.bytes_to_backend, exchange.bytes_to_client) == (8, 8)


@pytest.mark.parametrize(("key", "status"), [(None, 401), (ALICE, 401)])
async def test_refused_websocket(
    app: ProxyApplication, ended: list[Exchange], key: str | None, status: int
) -> None:
    await AsgiSocket(app, SOCKET, key=key).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.REFUSED, status)


async def test_websocket_at_an_unknown_path_has_no_route(
    app: ProxyApplication, ended: list[Exchange]
) -> None:
    await AsgiSocket(app, "/nowhere", key=MANAGER).finish()
    [exchange] = ended
    assert (exchange.outcome, exchange.status, exchange.route) == (Outcome.REFUSED, 404, None)


async def test_websocket_whose_client_vanishes(
    app: ProxyApplication, sockets: SocketBackend, ended: list[Exchange]
) -> None:
    client = AsgiSocket(app, SOCKET, key=MANAGER)
    await client.next()
    client.disconnect(code=1006)
    await client.finish()
    assert [exchange.outcome for exchange in ended] == [Outcome.CLIENT_DISCONNECTED]
