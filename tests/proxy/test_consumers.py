"""The HTTP consumer, from a client to a real backend server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from instances.states import Status
from llamactl.middleware.response_headers import ResponseHeaders
from proxy import forward
from proxy.asgi import ProxyApplication
from proxy.body.request_defaults import RequestDefaults
from tests.proxy.conftest import (
    ALICE,
    BOB,
    CHARLIE,
    MANAGER,
    Backend,
    TableGateway,
    make_target,
    stopped,
)
from tests.support.asgi import AsgiRequest

CHAT = "/v1/chat/completions"


def ask(app: ProxyApplication, key: str | None = ALICE, **changes: Any) -> AsgiRequest:
    return AsgiRequest(app, CHAT, key=key, **{"json": {"model": "demo"}, **changes})


async def test_request_reaches_the_backend_and_its_answer_the_client(
    app: ProxyApplication, backend: Backend
) -> None:
    answer = await ask(app, query=b"a=1&api_key=x").finish()
    assert (answer.status, answer.json(), answer.is_complete) == (200, {"ok": True}, True)
    request = backend.requests[0]
    assert request.path_qs == CHAT + "?a=1"
    # It should carry the backend's own key, and never the client's.
    assert request.headers["Authorization"] == "Bearer of-the-backend"


async def test_body_goes_on_byte_for_byte_where_the_name_is_the_model(
    app: ProxyApplication, backend: Backend
) -> None:
    body = b'{ "model":"demo",  "seed": 12345678901234567890 }'
    await ask(app, body=body).finish()
    assert backend.bodies == [body]


async def test_name_becomes_the_configured_model(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, served_model="org/Model"))
    await ask(app).finish()
    assert backend.bodies == [b'{"model":"org/Model"}']


async def test_part_after_the_slash_is_the_model_in_router_mode(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, served_model=None))
    await ask(app, json={"model": "demo/org/m.gguf"}).finish()
    assert backend.bodies == [b'{"model":"org/m.gguf"}']


@pytest.mark.parametrize("alias", ["gpt-4o", "demo/other:tag", "[odd] 名"])
@pytest.mark.parametrize(("key", "status"), [(ALICE, 200), (BOB, 403)])
async def test_alias_is_the_instance_and_becomes_its_model(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    alias: str,
    key: str,
    status: int,
) -> None:
    gateway.lay(make_target(backend.origin, aliases=("gpt-4o", "demo/other:tag", "[odd] 名")))
    answer = await ask(app, key, json={"model": alias}).finish()
    assert answer.status == status
    assert backend.bodies == ([b'{"model":"demo"}'] if status == 200 else [])


DEFAULTS = RequestDefaults(
    frozenset({"logit_bias"}), {"temperature": b'"temperature":0.2', "seed": b'"seed":7'}
)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            CHAT,
            b'{ "model":"demo", "logit_bias": {"1": 2},  "n": 12345678901234567890 }',
            b'{"temperature":0.2,"seed":7, "model":"demo",  "n": 12345678901234567890 }',
        ),
        (
            "/llama-cpp/demo/completion",
            b'{"seed": null, "temperature": 1.50}',
            b'{"seed":7, "temperature": 1.50}',
        ),
        ("/llama-cpp/demo/completion", b"[1]", b"[1]"),
        ("/llama-cpp/demo/models/load", b'{"model":"a"}', b'{"model":"a"}'),
        ("/api/v1/instances/demo/proxy/completion", b'{"model":"a"}', b'{"model":"a"}'),
    ],
)
async def test_request_defaults_are_spliced_into_the_body(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    path: str,
    body: bytes,
    expected: bytes,
) -> None:
    gateway.lay(make_target(backend.origin, is_llama_server=True, request_defaults=DEFAULTS))
    answer = await AsgiRequest(app, path, key=MANAGER, body=body).finish()
    assert answer.status == 200
    assert backend.bodies == [expected]


async def test_name_of_an_instance_comes_before_an_alias(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    # No such rows are saved, but a database may have been edited by hand.
    other = make_target("http://127.0.0.1:1", id=2, name="other", aliases=("demo",))
    gateway.lay(make_target(backend.origin), other)
    assert (await ask(app).finish()).status == 200


@pytest.mark.parametrize(
    ("key", "status", "message"),
    [
        (None, 401, "Missing API key"),
        (CHARLIE, 401, "Invalid API key"),
        (BOB, 403, "does not have access"),
        (ALICE, 200, None),
        (MANAGER, 200, None),
    ],
)
async def test_key_decides_who_may_use_an_instance(
    app: ProxyApplication, backend: Backend, key: str | None, status: int, message: str | None
) -> None:
    answer = await ask(app, key).finish()
    assert answer.status == status
    if message:
        assert message in answer.json()["error"]["message"]
        assert not backend.requests


async def test_unknown_model_is_404_in_openais_shape(app: ProxyApplication) -> None:
    answer = await ask(app, json={"model": "nope"}).finish()
    error = answer.json()["error"]
    assert answer.status == 404
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_anthropic_path_gets_anthropics_error_shape(app: ProxyApplication) -> None:
    answer = await AsgiRequest(app, "/v1/messages", json={"model": "nope"}, key=ALICE).finish()
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "not_found_error"


async def test_body_over_the_limit_is_413(app: ProxyApplication) -> None:
    answer = await ask(app, body=b'{"model": "' + b"x" * 1000 + b'"}').finish()
    assert (answer.status, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_wrong_method_is_405_after_the_key_was_checked(app: ProxyApplication) -> None:
    assert (await ask(app, key=None, method="GET").finish()).status == 401
    assert (await ask(app, method="GET").finish()).status == 405


async def test_query_that_no_backend_takes_is_refused_here(
    app: ProxyApplication, backend: Backend
) -> None:
    answer = await ask(app, query=b"a=1&" * 3000).finish()
    assert (answer.status, answer.json()["error"]["code"]) == (414, "uri_too_long")
    assert not backend.requests


async def test_options_needs_no_key(app: ProxyApplication) -> None:
    answer = await ask(app, key=None, method="OPTIONS").finish()
    assert (answer.status, answer.header("allow")) == (204, "POST, OPTIONS")


async def test_models_lists_what_the_key_may_use(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin), make_target(backend.origin, name="other", id=99))
    listed = {}
    for key in (ALICE, BOB):
        answer = await AsgiRequest(app, "/v1/models", method="GET", key=key).finish()
        listed[key] = [entry["id"] for entry in answer.json()["data"]]
    assert listed == {ALICE: ["demo", "other"], BOB: ["other"]}


async def test_models_of_a_router_are_listed_behind_its_name(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    async def router(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": "b"}, {"id": "a"}, {"id": 3}, "junk"]})

    backend.handler = router
    gateway.lay(make_target(backend.origin, served_model=None))
    answer = await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    assert [entry["id"] for entry in answer.json()["data"]] == ["demo", "demo/a", "demo/b"]


async def test_events_leave_one_by_one_as_they_come(
    app: ProxyApplication, backend: Backend
) -> None:
    go_on = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    backend.handler = events
    exchange = ask(app).start()
    await exchange.first_chunk()
    # It should not wait for the second event before it sends the first.
    assert exchange.response.body == b"data: 1\n\n"
    go_on.set()
    answer = await exchange.finish()
    assert answer.body == b"data: 1\n\ndata: 2\n\n"
    assert answer.is_complete


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError("the client did not disconnect")


async def test_cancellation_by_the_server_is_no_disconnect(
    app: ProxyApplication, backend: Backend
) -> None:
    backend.handler = hang
    exchange = ask(app).start()
    await asyncio.wait_for(backend.began.wait(), 5)
    assert exchange.task is not None
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task


async def test_request_to_a_backend_that_just_died_waits_and_is_sent_again(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, unused_tcp_port: int
) -> None:
    # It should meet a refused connection while the table still says "running".
    gateway.lay(make_target(f"http://127.0.0.1:{unused_tcp_port}"))
    exchange = ask(app).start()
    await asyncio.sleep(0.05)
    gateway.lay(make_target(backend.origin, status=Status.RESTARTING))
    await asyncio.sleep(0.05)
    gateway.lay(make_target(backend.origin))
    assert (await exchange.finish()).status == 200


async def test_request_that_kills_its_backend_is_sent_twice_at_most(
    app: ProxyApplication, backend: Backend
) -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    backend.handler = die
    answer = await ask(app).finish()
    assert (answer.status, len(backend.requests)) == (502, 2)


async def test_kept_connection_that_was_closed_is_replaced_by_a_fresh_one(
    app: ProxyApplication, backend: Backend
) -> None:
    handler = backend.handler

    async def close_once(request: web.Request) -> web.StreamResponse:
        if len(backend.requests) > 1:
            return await handler(request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    backend.handler = close_once
    assert (await ask(app).finish()).status == 200


async def test_backend_that_answers_nonsense_is_502(
    app: ProxyApplication,
    gateway: TableGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "CRASH_NOTICE_SECONDS", 0.05)

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01 this is no HTTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway.lay(make_target(f"http://127.0.0.1:{port}"))
    answer = await ask(app).finish()
    server.close()
    assert (answer.status, answer.json()["error"]["code"]) == (502, "backend_unreachable")


async def test_event_stream_that_breaks_off_ends_with_an_error_event(
    app: ProxyApplication, backend: Backend
) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"half')
        assert request.transport is not None
        request.transport.abort()
        return response

    backend.handler = break_off
    answer = await ask(app).finish()
    assert answer.body.startswith(b'data: {"half\n\ndata: {"error"')
    assert answer.is_complete


async def test_plain_body_that_breaks_off_is_cut_and_not_ended(
    app: ProxyApplication, backend: Backend
) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    backend.handler = break_off
    answer = await ask(app).finish()
    assert (answer.body, answer.is_complete) == (b"half", False)


async def test_management_proxy_takes_any_method_and_path_and_starts_nothing(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    path = "/api/v1/instances/demo/proxy/slots/a%2Fb"
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await AsgiRequest(app, path, method=method, key=MANAGER, query=b"x=1").finish()
        assert answer.status == 200
    assert {request.raw_path for request in backend.requests} == {"/slots/a%2Fb?x=1"}
    assert [request.method for request in backend.requests] == ["GET", "PUT", "DELETE", "PATCH"]
    assert (await AsgiRequest(app, path, key=ALICE).finish()).json() == {
        "error": {"message": "Invalid API key", "type": "authentication_error"}
    }
    gateway.lay(stopped(backend))
    answer = await AsgiRequest(app, path, key=MANAGER).finish()
    assert (answer.status, answer.json()["error"]) == (503, "instance_not_running")
    assert not gateway.starts


async def test_servers_headers_are_on_answers_and_refusals_and_the_backends_come_first(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    layer = ResponseHeaders(app, {"X-A": "server", "X-B": "server", "X-Of-Backend": "server"})
    gateway.lay(make_target(backend.origin, response_headers=((b"x-a", b"configured"),)))

    async def ok(request: web.Request) -> web.StreamResponse:
        headers = {"X-A": "backend", "X-Of-Backend": "backend", "Access-Control-Max-Age": "1"}
        return web.json_response({}, headers=headers)

    backend.handler = ok
    answer = await AsgiRequest(layer, CHAT, key=ALICE, json={"model": "demo"}).finish()
    own = [pair for pair in answer.headers if pair[0] != b"x-request-id"]
    assert [pair for pair in own if pair[0].startswith((b"x-", b"access"))] == [
        (b"x-a", b"configured"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-b", b"server"),
        (b"x-of-backend", b"server"),
    ]
    refusal = await AsgiRequest(layer, CHAT, json={"model": "demo"}).finish()
    assert (refusal.status, refusal.header("x-a")) == (401, "server")
