"""Usage of requests through the proxy: tokens, holders, times, and a database that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import time
from typing import Any

import pytest
from aiohttp import web
from django.db import OperationalError

from keys.usage import writing
from keys.usage.models import ANONYMOUS_HOLDER, MANAGEMENT_HOLDER
from keys.usage.recorder import Place, Sums
from proxy.asgi import ProxyApplication
from proxy.exchange import Exchange
from tests.proxy.conftest import ALICE, BOB, CHARLIE, MANAGER, Backend, TableGateway
from tests.support.asgi import AsgiRequest

CHAT = "/v1/chat/completions"
USAGE = {
    "prompt_tokens": 21,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 20},
}


@pytest.fixture
def ended(gateway: TableGateway) -> list[Exchange]:
    exchanges: list[Exchange] = []
    gateway.observers.append(exchanges.append)
    return exchanges


def counted(gateway: TableGateway, key_id: int, instance: str = "demo") -> Sums:
    return gateway.usage_log.recorder.current[key_id, instance]


def answering(status: int = 200) -> Callable[[web.Request], object]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [], "usage": USAGE}, status=status)

    return answer


def streaming(*, is_whole: bool = True, seconds: float = 0) -> Callable[[web.Request], object]:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text in ("role", "a", "b", "c"):
            await response.write(
                b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text.encode()
            )
            await asyncio.sleep(0.001)
        await asyncio.sleep(seconds)
        if is_whole:
            await response.write(b'data: {"choices":[],"usage":{"prompt_tokens":5,')
            await response.write(b'"completion_tokens":3}}\n\ndata: [DONE]\n\n')
        else:
            assert request.transport is not None
            request.transport.abort()
        return response

    return stream


def chat(app: ProxyApplication, key: str | None = ALICE, path: str = CHAT) -> AsgiRequest:
    return AsgiRequest(app, path, key=key, json={"model": "demo"})


async def test_each_holder_has_its_own_sums(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = answering()  # type: ignore[assignment]
    await chat(app).finish()
    await chat(app).finish()
    await chat(app, MANAGER).finish()
    auth = gateway.config.auth.model_copy(update={"require_inference_auth": False})
    gateway.config = gateway.config.model_copy(update={"auth": auth})
    await chat(app, None).finish()
    alice = counted(gateway, 1)
    assert (alice.requests, alice.errors) == (2, 0)
    assert (alice.prompt_tokens, alice.cached_tokens, alice.completion_tokens) == (42, 40, 18)
    assert alice.estimated_tokens == 0
    assert alice.compute_seconds > 0
    assert counted(gateway, MANAGEMENT_HOLDER).completion_tokens == 9
    assert counted(gateway, ANONYMOUS_HOLDER).completion_tokens == 9


async def test_refused_requests_count_for_their_key_and_unknown_keys_for_nobody(
    app: ProxyApplication, gateway: TableGateway
) -> None:
    await chat(app, BOB).finish()
    await chat(app, CHARLIE).finish()
    await chat(app, None).finish()
    assert list(gateway.usage_log.recorder.current) == [(2, "")]
    assert counted(gateway, 2, "").errors == 1


async def test_error_of_the_backend_has_no_tokens(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = answering(status=500)  # type: ignore[assignment]
    await chat(app).finish()
    assert (counted(gateway, 1).errors, counted(gateway, 1).prompt_tokens) == (1, 0)


async def test_requests_that_only_observe_are_no_usage(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = answering()  # type: ignore[assignment]
    await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    await AsgiRequest(
        app, "/api/v1/instances/demo/proxy/metrics", method="GET", key=MANAGER
    ).finish()
    assert not gateway.usage_log.recorder.current


async def test_post_through_the_instance_proxy_counts_its_tokens(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    backend.handler = answering()  # type: ignore[assignment]
    await chat(app, MANAGER, f"/api/v1/instances/demo/proxy{CHAT}").finish()
    assert counted(gateway, MANAGEMENT_HOLDER).prompt_tokens == 21


async def test_stream_counts_the_figures_of_its_end(
    app: ProxyApplication, backend: Backend, ended: list[Exchange]
) -> None:
    backend.handler = streaming()  # type: ignore[assignment]
    response = await chat(app).finish()
    assert response.body.endswith(b"data: [DONE]\n\n")
    [exchange] = ended
    assert exchange.tokens == (5, 0, 3, 0, 0, False)
    # It should keep nothing of the body: an observer may keep the exchange.
    assert exchange.body is None


async def test_stream_that_breaks_off_is_estimated_by_its_events(
    app: ProxyApplication, backend: Backend, ended: list[Exchange], gateway: TableGateway
) -> None:
    backend.handler = streaming(is_whole=False)  # type: ignore[assignment]
    await chat(app).finish()
    [exchange] = ended
    assert (exchange.tokens.completion, exchange.tokens.is_estimated) == (3, True)
    assert counted(gateway, 1).estimated_tokens == 3
    assert counted(gateway, 1).errors == 1


async def test_stream_whose_client_disconnects_is_estimated(
    app: ProxyApplication, backend: Backend, ended: list[Exchange], gateway: TableGateway
) -> None:
    backend.handler = streaming(seconds=60)  # type: ignore[assignment]
    request = chat(app).start()
    await request.first_chunk()
    await asyncio.sleep(0.1)
    request.disconnect()
    await request.finish()
    [exchange] = ended
    assert exchange.tokens.is_estimated
    assert 0 < exchange.tokens.completion <= 3
    assert counted(gateway, 1).errors == 0


async def test_generation_that_is_read_again_counts_once(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    """llama-server's stream of an earlier request, which the web UI reads after a reload."""
    backend.handler = streaming()  # type: ignore[assignment]
    target = replace(gateway.live.table.targets["demo"], is_llama_server=True)
    gateway.lay(target)
    path = "/llama-cpp/demo/v1/stream"
    response = await AsgiRequest(app, path, method="GET", key=ALICE).finish()
    assert response.status == 200
    assert not gateway.usage_log.recorder.current


async def test_batches_wait_for_a_database_that_is_away(
    gateway: TableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    is_away = True

    def write(writer: str, number: int, sums: Mapping[Place, Sums], *_: Any, **__: Any) -> None:
        if is_away:
            raise OperationalError("gone")
        written.extend(each.requests for each in sums.values())

    async def at_once(function: Callable[[], None]) -> None:
        function()

    monkeypatch.setattr(writing, "write", write)
    log = gateway.usage_log
    for _ in range(3):
        log.recorder.sums_of(1, "demo").requests += 1
        await log.write(at_once)
    assert written == []
    is_away = False
    await log.write(at_once)
    # The batch that may be in the database all the same, and one with everything since.
    assert written == [1, 2]
    await log.write(at_once)
    assert len(written) == 2


async def test_last_requests_are_recorded_without_their_query_and_contents(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.usage_log.keep_requests(10)
    backend.handler = answering()  # type: ignore[assignment]
    await AsgiRequest(
        app,
        f"/api/v1/instances/demo/proxy{CHAT}?secret=1",
        key=MANAGER,
        json={"model": "demo"},
        headers=[(b"x-request-id", b"mine")],
    ).finish()
    [record] = gateway.usage_log.recorder.requests
    assert (record.path, record.status, record.outcome) == (CHAT, 200, "answered")
    assert (len(record.request_id), record.client_request_id) == (32, "mine")
    assert (record.key_id, record.instance) == (MANAGEMENT_HOLDER, "demo")
    assert (record.prompt_tokens, record.completion_tokens) == (21, 9)
    assert abs(record.ended_at - time()) < 60
    assert record.first_byte_seconds is not None
    assert record.total_seconds >= record.first_byte_seconds >= 0
    assert record.request_bytes == len(backend.bodies[0])


async def test_no_request_is_recorded_where_none_is_kept(
    app: ProxyApplication, gateway: TableGateway
) -> None:
    gateway.usage_log.keep_requests(0)
    await chat(app).finish()
    assert not gateway.usage_log.recorder.requests
