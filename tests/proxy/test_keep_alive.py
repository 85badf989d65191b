"""Signs of life for clients that wait, and what may follow them."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, time
from typing import Any

import pytest
from aiohttp import web

from instances.states import Status
from llamactl.core.asgi_types import Message
from proxy import forward
from proxy.asgi import ProxyApplication
from proxy.early_response import PING
from proxy.exchange import Exchange, Outcome
from proxy.keep_alive import KeepAlive
from proxy.table.table import Target
from tests.proxy.conftest import ALICE, Backend, TableGateway, stopped
from tests.support.asgi import AsgiRequest, AsgiResponse
from tests.support.until import until_async

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
EVENTS = {"Content-Type": "text/event-stream"}
AFTER = 10.0
STREAM = {"model": "demo", "stream": True}


@pytest.fixture
def keep_alive(gateway: TableGateway) -> KeepAlive:
    return KeepAlive(
        gateway.registry, gateway.live, gateway.turns, after_seconds=AFTER, every_seconds=0.02
    )


@pytest.fixture
def ended(gateway: TableGateway) -> list[Exchange]:
    exchanges: list[Exchange] = []
    gateway.observers.append(exchanges.append)
    return exchanges


def ask(app: ProxyApplication, path: str = CHAT, **more: Any) -> AsgiRequest:
    return AsgiRequest(app, path, **{"key": ALICE, "json": STREAM, **more}).start()


async def waiting(
    app: ProxyApplication, gateway: TableGateway, target: Target, path: str = CHAT, **more: Any
) -> AsgiRequest:
    """A request that waits for the start of the target."""
    gateway.lay(target)
    request = ask(app, path, **more)
    await asyncio.wait_for(gateway.start_was_requested.wait(), 10)
    return request


def late() -> float:
    return perf_counter() + AFTER


def change(gateway: TableGateway, **changes: Any) -> None:
    gateway.lay(replace(gateway.live.table.targets["demo"], **changes))


def become_ready(gateway: TableGateway) -> None:
    change(gateway, status=Status.RUNNING, observed_generation=2, queue=None)


async def streaming(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={**EVENTS, "X-Backend": "yes"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def answering(**answer: Any) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(**answer)

    return handler


def comments(answer: AsgiResponse) -> list[str]:
    return [line[2:] for line in answer.body.decode().splitlines() if line.startswith(": ")]


def last_event(answer: AsgiResponse) -> Any:
    last = answer.body.decode().strip().rpartition("\n\n")[2]
    return json.loads(last.partition("data: ")[2])


async def begun(request: AsgiRequest, keep_alive: KeepAlive) -> None:
    keep_alive.look(late())
    await request.first_chunk()


async def test_a_waiting_stream_says_what_it_waits_for_and_then_streams(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    ended: list[Exchange],
) -> None:
    backend.handler = streaming
    queue = {"place": 2, "length": 3, "reason": "max_running_instances (1) is reached"}
    request = await waiting(app, gateway, stopped(backend, load_seconds=22.4))
    change(gateway, queue=queue)
    # It should wait for its time: until then a failure has a status.
    keep_alive.look(perf_counter() + AFTER - 1)
    await asyncio.sleep(0.05)
    assert request.response.status == 0
    await begun(request, keep_alive)
    assert request.response.status == 200
    assert request.response.header("content-type") == "text/event-stream"
    assert request.response.header("cache-control") == "no-cache"
    assert request.response.header("x-accel-buffering") == "no"
    change(gateway, queue=None, status=Status.STARTING, started_at=time() - 14)
    await until_async(lambda: "loading" in request.response.body.decode(), "it loads")
    change(gateway, load_seconds=None)
    await until_async(lambda: "(14 s)" in request.response.body.decode(), "without a known time")
    become_ready(gateway)
    answer = await request.finish()
    said = comments(answer)
    assert said[0] == "waiting (place 2 of 3)"
    assert {"loading (14 of about 22 s)", "loading (14 s)"} <= set(said)
    # It should be followed by the backend's bytes as they are.
    assert answer.body.endswith(b" s)\n\ndata: 1\n\ndata: [DONE]\n\n")
    assert answer.is_complete
    [exchange] = ended
    assert (exchange.outcome, exchange.status) == (Outcome.ANSWERED, 200)
    assert exchange.bytes_to_client == len(b"data: 1\n\ndata: [DONE]\n\n")
    assert answer.header("x-request-id") == exchange.id


async def test_a_long_prefill_is_kept_alive(
    app: ProxyApplication, backend: Backend, keep_alive: KeepAlive
) -> None:
    """llama.cpp sends the head of a stream at once, and no event before it has read the prompt."""
    prompt_is_read = asyncio.Event()

    async def prefill(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENTS)
        await response.prepare(request)
        await prompt_is_read.wait()
        await response.write(b"data: 1\n\n")
        return response

    backend.handler = prefill
    request = ask(app)
    await asyncio.wait_for(backend.began.wait(), 10)
    await begun(request, keep_alive)
    assert comments(request.response)[0] == "prefill (0 s)"
    prompt_is_read.set()
    assert (await request.finish()).body.endswith(b"\n\ndata: 1\n\n")


async def test_anthropics_clients_get_pings(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    backend.handler = streaming
    request = await waiting(app, gateway, stopped(backend), MESSAGES)
    await begun(request, keep_alive)
    become_ready(gateway)
    answer = await request.finish()
    pings = answer.body.removesuffix(b"data: 1\n\ndata: [DONE]\n\n")
    assert pings == PING * (len(pings) // len(PING))
    assert pings


@pytest.mark.parametrize(
    "more",
    [
        {"json": {"model": "demo"}},
        {"json": {"model": "demo", "stream": False}},
        {"json": {"model": "demo", "stream": "true", "tools": [{"stream": True}]}},
        {"path": "/v1/audio/speech"},
        {"path": "/v1/embeddings"},
        {"path": "/v1/rerank"},
        {"path": "/v1/messages/count_tokens"},
    ],
)
async def test_other_requests_get_nothing(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    more: dict[str, Any],
) -> None:
    request = await waiting(app, gateway, stopped(backend), **more)
    keep_alive.look(late())
    await asyncio.sleep(0.05)
    become_ready(gateway)
    answer = await request.finish()
    assert (answer.status, answer.body) == (200, b'{"ok": true}')


async def test_a_response_that_has_begun_stays_as_it_is(
    app: ProxyApplication, backend: Backend, keep_alive: KeepAlive
) -> None:
    goes_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENTS)
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await goes_on.wait()
        return response

    backend.handler = slow
    request = ask(app)
    await request.first_chunk()
    keep_alive.look(late())
    await asyncio.sleep(0.05)
    goes_on.set()
    assert (await request.finish()).body == b"data: 1\n\n"


FAILURE = {"reason": "out_of_memory", "message": "out of memory", "exit_code": 1, "log_tail": []}


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/responses", "/llama-cpp/demo/completion"])
async def test_a_failed_start_is_an_error_event_in_the_shape_of_the_api(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    ended: list[Exchange],
    path: str,
) -> None:
    request = await waiting(app, gateway, stopped(backend, is_llama_server=True), path)
    await begun(request, keep_alive)
    change(gateway, status=Status.FAILED, observed_generation=2, failure=FAILURE)
    answer = await request.finish()
    assert (answer.status, answer.is_complete) == (200, True)
    document = last_event(answer)
    assert document["error"]["reason"] == "out_of_memory"
    if path == MESSAGES:
        assert document["type"] == "error"
        assert b"\n\nevent: error\ndata: {" in answer.body
    assert [exchange.outcome for exchange in ended] == [Outcome.BACKEND_FAILED]


async def test_a_cancelled_request_is_an_error_event(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    request = await waiting(app, gateway, stopped(backend))
    await begun(request, keep_alive)
    (running,) = gateway.registry.documents({})
    assert gateway.registry.cancel(running["id"], {}) is not None
    answer = await request.finish()
    assert last_event(answer)["error"]["code"] == "request_cancelled"


async def test_a_dead_backend_is_an_error_event(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "CRASH_NOTICE_SECONDS", 0.05)
    request = await waiting(app, gateway, replace(stopped(backend), origin="http://127.0.0.1:1"))
    await begun(request, keep_alive)
    become_ready(gateway)
    answer = await request.finish()
    assert last_event(answer)["error"]["code"] == "backend_unreachable"


async def test_a_defect_is_an_error_event(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    request = await waiting(app, gateway, stopped(backend))
    await begun(request, keep_alive)
    monkeypatch.setattr(gateway.upstream, "open", fail)
    become_ready(gateway)
    answer = await request.finish()
    assert (answer.is_complete, last_event(answer)["error"]["code"]) == (True, "internal_error")


async def test_a_backend_that_breaks_off_is_an_error_event_whatever_its_length(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    async def dying(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**EVENTS, "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        assert request.transport is not None
        request.transport.abort()
        return response

    backend.handler = dying
    request = await waiting(app, gateway, stopped(backend))
    await begun(request, keep_alive)
    become_ready(gateway)
    answer = await request.finish()
    assert last_event(answer)["error"]["code"] == "backend_broke_off"


TOO_LONG = {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 512}


@pytest.mark.parametrize(
    ("path", "answer", "expected"),
    [
        (
            CHAT,
            {"status": 400, "body": json.dumps({"error": TOO_LONG}).encode()},
            {"message": "too long", "code": 400, "type": "exceed_context_size_error", "n_ctx": 512},
        ),
        (
            MESSAGES,
            {"status": 400, "body": json.dumps({"error": TOO_LONG}).encode()},
            {"message": "too long", "type": "invalid_request_error", "n_ctx": 512},
        ),
        (
            MESSAGES,
            {
                "status": 529,
                "body": b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}',
            },
            {"message": "busy", "type": "overloaded_error"},
        ),
        (
            CHAT,
            {"status": 404, "body": b'{"object":"error","message":"no model","type":"NotFound"}'},
            {"message": "no model", "type": "NotFound", "code": "backend_error"},
        ),
        (CHAT, {"status": 500, "body": b"oops"}, {"code": "backend_error", "type": "server_error"}),
        (CHAT, {"status": 500, "body": b""}, {"code": "backend_error"}),
        (CHAT, {"status": 200, "body": b'{"choices": []}'}, {"code": "backend_error"}),
        (CHAT, {"status": 302, "headers": {"Location": "/x"}}, {"code": "backend_error"}),
        (CHAT, {"status": 204}, {"code": "backend_error"}),
        (
            CHAT,
            {
                "status": 200,
                "body": gzip.compress(b"data: 1\n\n"),
                "headers": {**EVENTS, "Content-Encoding": "gzip"},
            },
            {"code": "backend_error"},
        ),
    ],
)
async def test_an_answer_that_is_no_event_stream_is_an_error_event(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    path: str,
    answer: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    backend.handler = answering(**answer)
    request = await waiting(app, gateway, stopped(backend), path)
    await begun(request, keep_alive)
    become_ready(gateway)
    response = await request.finish()
    assert (response.status, response.is_complete) == (200, True)
    error = last_event(response)["error"]
    assert {name: error[name] for name in expected} == expected


async def test_an_endless_answer_that_is_no_event_stream_is_quoted_in_part(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    backend.handler = endless
    request = await waiting(app, gateway, stopped(backend))
    await begun(request, keep_alive)
    become_ready(gateway)
    response = await request.finish()
    assert len(last_event(response)["error"]["message"]) < 1000
    await asyncio.wait_for(backend.cancelled.wait(), 10)


async def test_the_client_disconnects_while_it_is_kept_alive(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    ended: list[Exchange],
) -> None:
    backend.handler = silent
    request = ask(app)
    await asyncio.wait_for(backend.began.wait(), 10)
    await begun(request, keep_alive)
    request.disconnect()
    await request.finish()
    assert [exchange.outcome for exchange in ended] == [Outcome.CLIENT_DISCONNECTED]
    await asyncio.wait_for(backend.cancelled.wait(), 10)
    # It should leave no task behind that goes on to send.
    assert not [each for each in asyncio.all_tasks() if each.get_name() == "early-response"]


class StoppedReader(AsgiRequest):
    """A client that reads the head, and then nothing."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.blocked = asyncio.Event()

    async def _send(self, message: Message) -> None:
        await super()._send(message)
        if message["type"] == "http.response.body":
            self.blocked.set()
            await asyncio.sleep(60)


async def test_a_client_that_does_not_read_can_disconnect(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    backend.handler = streaming
    gateway.lay(stopped(backend))
    request = StoppedReader(app, CHAT, key=ALICE, json=STREAM)
    request.start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 10)
    keep_alive.look(late())
    await asyncio.wait_for(request.blocked.wait(), 10)
    become_ready(gateway)
    await asyncio.wait_for(backend.began.wait(), 10)
    request.disconnect()
    await request.finish()
    assert not [each for each in asyncio.all_tasks() if each.get_name() == "early-response"]


def blank_target(backend: Backend) -> Target:
    return stopped(backend, keepalive_blanks=True)


async def test_blanks_come_before_json_where_the_instance_says_so(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    request = await waiting(app, gateway, blank_target(backend), json={"model": "demo"})
    await begun(request, keep_alive)
    assert request.response.header("content-type") == "application/json"
    become_ready(gateway)
    answer = await request.finish()
    assert answer.body.startswith(b"\n")
    assert (answer.is_complete, answer.json()) == (True, {"ok": True})


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_an_error_after_blanks_is_a_document(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    path: str,
) -> None:
    request = await waiting(app, gateway, blank_target(backend), path, json={"model": "demo"})
    await begun(request, keep_alive)
    change(gateway, status=Status.FAILED, observed_generation=2, failure=FAILURE)
    answer = await request.finish()
    assert (answer.status, answer.is_complete) == (200, True)
    assert answer.json()["error"]["reason"] == "out_of_memory"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 400, "content_type": "application/json", "body": b'{"error": 1}'}, None),
        ({"status": 500, "body": b"oops"}, "answered 500"),
        ({"status": 200, "content_type": "audio/wav", "body": b"RIFF"}, "answered 200"),
    ],
)
async def test_an_answer_after_blanks_is_json_in_any_case(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    answer: dict[str, Any],
    message: str | None,
) -> None:
    backend.handler = answering(**answer)
    request = await waiting(app, gateway, blank_target(backend), json={"model": "demo"})
    await begun(request, keep_alive)
    become_ready(gateway)
    error = (await request.finish()).json()["error"]
    assert error == 1 if message is None else message in error["message"]


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/images/generations"])
async def test_no_blanks_come_before_sound_and_pictures(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keep_alive: KeepAlive,
    path: str,
) -> None:
    request = await waiting(app, gateway, blank_target(backend), path, json={"model": "demo"})
    keep_alive.look(late())
    await asyncio.sleep(0.05)
    assert request.response.status == 0
    become_ready(gateway)
    await request.finish()


async def test_configured_headers_are_on_an_early_response(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, keep_alive: KeepAlive
) -> None:
    headers = ((b"x-node", b"main"), (b"cache-control", b"private"))
    request = await waiting(app, gateway, stopped(backend, response_headers=headers))
    await begun(request, keep_alive)
    become_ready(gateway)
    answer = await request.finish()
    names = [name for name, _ in answer.headers]
    assert b"server-timing" not in names  # its times are not known yet
    assert (b"x-node", b"main") in answer.headers
    assert [value for name, value in answer.headers if name == b"cache-control"] == [b"private"]
    assert len(names) == len(set(names))
