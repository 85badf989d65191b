"""What runs now in a web process, and its cancellation in each phase."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from instances.scheduling.web_query import RequestDocument
from instances.states import Status
from proxy.asgi import ProxyApplication
from proxy.exchange import Exchange, Outcome
from proxy.registry import MAX_LISTED, Registry, client_address
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, stopped
from tests.support.asgi import AsgiRequest
from tests.support.until import until_async

CHAT = "/v1/chat/completions"
EVENTS = {"Content-Type": "text/event-stream"}
EVENT = b"data: 1\n\n"


def chat(app: ProxyApplication, path: str = CHAT, key: str = ALICE, **more: Any) -> AsgiRequest:
    return AsgiRequest(app, path, key=key, json={"model": "demo", "stream": True}, **more).start()


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def streaming(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=EVENTS)
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    await asyncio.sleep(60)
    return response


async def three_events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=EVENTS)
    await response.prepare(request)
    await response.write(EVENT * 3)
    await asyncio.sleep(60)
    return response


async def document(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"begun": ')
    await asyncio.sleep(60)
    return response


def listed(gateway: TableGateway) -> list[RequestDocument]:
    return gateway.registry.documents(gateway.live.table.targets)


def cancel(gateway: TableGateway) -> RequestDocument | None:
    (request,) = listed(gateway)
    return gateway.registry.cancel(request["id"], gateway.live.table.targets)


async def test_each_phase_has_its_name(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = three_events
    gateway.lay(stopped(backend))
    assert listed(gateway) == []
    request = chat(app)
    await asyncio.wait_for(gateway.start_was_requested.wait(), 10)
    requested = gateway.live.table.targets["demo"]
    assert [each["phase"] for each in listed(gateway)] == ["queued"]
    gateway.lay(replace(requested, status=Status.STARTING, observed_generation=2))
    assert [each["phase"] for each in listed(gateway)] == ["loading"]
    gateway.lay(replace(requested, status=Status.RUNNING, observed_generation=2))
    await until_async(lambda: request.response.body == EVENT * 3, "three events")
    (running,) = listed(gateway)
    assert (running["phase"], running["bytes"]) == ("streaming", len(EVENT * 3))
    # It should leave out the event with the role, which is no token.
    assert running["tokens"] == 2
    request.disconnect()
    await request.finish()
    assert listed(gateway) == []


async def test_a_list_says_whose_request_it_is_and_no_secret(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = silent
    headers = [(b"x-request-id", b"theirs")]
    requests = [
        chat(app, headers=headers, query=b"api_key=secret"),
        chat(app, path="/api/v1/instances/demo/proxy/x", key=MANAGER),
    ]
    await until_async(lambda: len(backend.requests) == 2, "both are sent")
    first, second = listed(gateway)
    assert (first["key_id"], first["client_request_id"]) == (1, "theirs")
    assert (second["key"], second["key_id"], second["client_request_id"]) == (
        "management",
        None,
        None,
    )
    assert [each["phase"] for each in (first, second)] == ["prefill", "prefill"]
    assert (first["method"], first["path"], first["instance"]) == ("POST", CHAT, "demo")
    assert first["elapsed_seconds"] >= 0
    assert "secret" not in json.dumps([first, second])
    for request in requests:
        request.disconnect()
        await request.finish()


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/llama-cpp/demo/completion"])
async def test_a_cancelled_request_that_waits_is_503_that_nobody_repeats(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str
) -> None:
    gateway.lay(stopped(backend, is_llama_server=True))
    request = chat(app, path)
    await asyncio.wait_for(gateway.start_was_requested.wait(), 10)
    before = cancel(gateway)
    assert before is not None
    assert before["phase"] == "queued"
    answer = await request.finish()
    assert (answer.status, answer.header("x-should-retry")) == (503, "false")
    assert answer.header("retry-after") is None
    assert "request_cancelled" in answer.body.decode()
    assert backend.requests == []


async def test_a_cancelled_request_in_prefill_is_503_and_leaves_its_backend(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = silent
    ended: list[Exchange] = []
    gateway.observers.append(ended.append)
    request = chat(app)
    await asyncio.wait_for(backend.began.wait(), 10)
    await asyncio.sleep(0.1)  # with its disconnect listener
    assert cancel(gateway) is not None
    answer = await request.finish()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "request_cancelled")
    await asyncio.wait_for(backend.cancelled.wait(), 10)
    assert [exchange.outcome for exchange in ended] == [Outcome.CANCELLED]


async def test_a_cancelled_stream_ends_with_an_error_event(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = streaming
    request = chat(app)
    await request.first_chunk()
    assert cancel(gateway) is not None
    answer = await request.finish()
    assert (answer.status, answer.is_complete) == (200, True)
    begun, event = answer.body.split(b"\n\n\n\n")
    assert begun == b"data: 1"
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "request_cancelled"
    await asyncio.wait_for(backend.cancelled.wait(), 10)


async def test_a_cancelled_document_that_has_begun_is_cut(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = document
    request = chat(app)
    await request.first_chunk()
    assert cancel(gateway) is not None
    answer = await request.finish()
    assert (answer.body, answer.is_complete) == (b'{"begun": ', False)


async def test_only_a_request_in_flight_can_be_cancelled_and_once(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    targets = gateway.live.table.targets
    assert gateway.registry.cancel("0" * 32, targets) is None
    backend.handler = silent
    request = chat(app)
    await asyncio.wait_for(backend.began.wait(), 10)
    (running,) = listed(gateway)
    assert gateway.registry.cancel(running["id"], targets) is not None
    assert gateway.registry.cancel(running["id"], targets) is None
    await request.finish()
    assert gateway.registry.cancel(running["id"], targets) is None


async def test_cancelled_and_disconnected_at_once(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = silent
    ended: list[Exchange] = []
    gateway.observers.append(ended.append)
    request = chat(app)
    await asyncio.wait_for(backend.began.wait(), 10)
    await asyncio.sleep(0.1)  # with its disconnect listener
    request.disconnect()
    cancel(gateway)
    await request.finish()
    assert len(ended) == 1
    assert ended[0].outcome in (Outcome.CANCELLED, Outcome.CLIENT_DISCONNECTED)
    assert len(gateway.registry) == 0


class FinishedRequest:
    """A request of a full registry."""

    def __init__(self) -> None:
        self.exchange = Exchange(None)
        self.scope = {"type": "http", "method": "POST", "path": "/" + "x" * 7000, "headers": []}

    def cancel(self, error: Exception) -> bool:
        return False


def test_a_list_is_bounded() -> None:
    registry: Registry[FinishedRequest] = Registry()
    for _ in range(MAX_LISTED + 5):
        registry.begin(FinishedRequest())
    documents = registry.documents({})
    assert (len(documents), len(registry)) == (MAX_LISTED, MAX_LISTED + 5)
    assert len(documents[0]["path"]) == 200


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        (("192.0.2.1", 5), [], "192.0.2.1"),
        (("192.0.2.1", 5), [b"10.0.0.1"], "192.0.2.1"),
        (("127.0.0.1", 5), [b"10.0.0.1, 192.0.2.9"], "192.0.2.9"),
        (("::1", 5), [b"2001:db8::1"], "2001:db8::1"),
        (("127.0.0.1", 5), [b"<script>"], "127.0.0.1"),
        (("127.0.0.1", 5), [b""], "127.0.0.1"),
        (None, [], None),
        (("", 0), [], None),
    ],
)
def test_address_of_the_client(
    client: tuple[str, int] | None, forwarded: list[bytes], address: str | None
) -> None:
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    assert client_address({"client": client, "headers": headers}) == address
