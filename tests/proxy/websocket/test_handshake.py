from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from instances.states import DesiredState, Status
from proxy.asgi import ProxyApplication
from proxy.upstream import websocket as upstream_sockets
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiSocket
from tests.support.socket_backend import SocketBackend

PATH = "/api/v1/instances/demo/proxy/ws"
ACCEPT = "websocket.accept"


async def opened(app: ProxyApplication, **options: Any) -> AsgiSocket:
    socket = AsgiSocket(app, PATH, key=MANAGER, **options)
    assert (await socket.next())["type"] == ACCEPT
    return socket


async def refused(app: ProxyApplication, path: str = PATH, **options: Any) -> AsgiSocket:
    socket = AsgiSocket(app, path, **options)
    await socket.finish(20)
    assert socket.sent.empty()
    assert socket.refusal.is_complete
    return socket


@pytest.mark.parametrize(
    ("options", "details"),
    [
        ({}, "Missing API key"),
        ({"key": ALICE}, "Invalid API key"),
        ({"key": "x"}, "Invalid API key"),
    ],
)
async def test_only_a_management_key_opens_it(
    app: ProxyApplication, backend: Backend, options: dict[str, str], details: str
) -> None:
    socket = await refused(app, **options)
    assert socket.refusal.status == 401
    error = socket.refusal.json()["error"]
    assert (error["type"], error["message"].partition(":")[0]) == ("authentication_error", details)
    assert socket.refusal.header("www-authenticate") == "Bearer"
    assert socket.refusal.header("x-should-retry") == "false"
    assert not backend.requests


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [(b"x-api-key", MANAGER.encode())]},
        {"query": f"a=1&api_key={MANAGER}&b=2".encode()},
        {"key": MANAGER},
    ],
)
async def test_key_may_come_by_header_or_query_and_stays_here(
    app: ProxyApplication, sockets: SocketBackend, backend: Backend, options: dict[str, Any]
) -> None:
    socket = AsgiSocket(app, PATH, **options)
    assert (await socket.next())["type"] == ACCEPT
    request = backend.requests[0]
    assert MANAGER not in str(request.headers) + str(request.rel_url)
    assert request.headers["Authorization"] == "Bearer of-the-backend"
    if "query" in options:
        assert str(request.rel_url) == "/ws?a=1&b=2"
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_backend_gets_the_clients_headers_but_not_its_handshake(
    app: ProxyApplication, sockets: SocketBackend, backend: Backend
) -> None:
    socket = await opened(
        app,
        headers=[
            (b"host", b"llamactl.example"),
            (b"origin", b"https://page.example"),
            (b"cookie", b"sessionid=1"),
            (b"connection", b"Upgrade, x-mine"),
            (b"upgrade", b"websocket"),
            (b"x-mine", b"1"),
            (b"x-trace", b"2"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-extensions", b"permessage-deflate"),
        ],
    )
    headers = backend.requests[0].headers
    assert headers["x-trace"] == "2"
    assert headers["sec-websocket-key"] != "dGhlIHNhbXBsZSBub25jZQ=="
    assert headers["connection"] == "Upgrade"
    assert headers["host"] in backend.origin
    for absent in ("origin", "cookie", "x-mine", "sec-websocket-extensions"):
        assert absent not in headers
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_configured_response_headers_go_with_the_handshake(
    app: ProxyApplication, gateway: TableGateway, sockets: SocketBackend, backend: Backend
) -> None:
    gateway.lay(make_target(backend.origin, response_headers=((b"x-node", b"main"),)))
    socket = AsgiSocket(app, PATH, key=MANAGER)
    configured, request_id = (await socket.next())["headers"]
    assert (configured, request_id[0]) == ((b"x-node", b"main"), b"x-request-id")
    socket.disconnect(code=1000, reason="")
    await socket.finish()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/instances/other/proxy/ws", 404),
        ("/api/v1/instances/..%2f/proxy/ws", 400),
        (PATH + "x" * 8000, 414),
    ],
)
async def test_path_that_names_no_instance_is_refused(
    app: ProxyApplication, path: str, status: int
) -> None:
    socket = await refused(app, path, key=MANAGER)
    assert socket.refusal.status == status
    assert set(socket.refusal.json()) == {"error", "details"}


@pytest.mark.parametrize("path", ["/", "/admin/", "/v1/realtime", "/v1/models", "/nowhere"])
async def test_no_other_path_answers_a_websocket(app: ProxyApplication, path: str) -> None:
    socket = await refused(app, path, key=MANAGER)
    assert socket.refusal.status == 404
    assert "/proxy/" in socket.refusal.body.decode()


@pytest.mark.parametrize(
    "state",
    [
        {"status": Status.STOPPED, "desired_state": DesiredState.STOPPED},
        {"status": Status.STARTING},
        {"desired_state": DesiredState.STOPPED},
    ],
)
async def test_instance_that_is_not_running_is_refused_and_not_started(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, state: dict[str, Any]
) -> None:
    gateway.lay(make_target(backend.origin, **state))
    socket = await refused(app, key=MANAGER)
    assert socket.refusal.status == 503
    assert "not running" in socket.refusal.json()["details"]
    assert not gateway.starts
    assert not backend.requests


@pytest.mark.parametrize(
    ("answered", "status"),
    [(404, 404), (426, 426), (401, 401), (500, 500), (503, 503), (200, 502), (302, 502)],
)
async def test_backends_refusal_is_passed_on(
    app: ProxyApplication, backend: Backend, answered: int, status: int
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=answered, headers={"Location": "/elsewhere"})

    backend.handler = refuse
    socket = await refused(app, key=MANAGER)
    assert socket.refusal.status == status
    assert str(answered) in socket.refusal.body.decode()
    # It should not follow a redirect either.
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
    ],
)
async def test_backend_that_answers_garbage_is_a_bad_gateway(
    app: ProxyApplication, gateway: TableGateway, garbage: bytes
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    gateway.lay(make_target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    socket = await refused(app, key=MANAGER)
    assert socket.refusal.status == 502
    assert socket.refusal.json()["error"] == "backend_unreachable"
    server.close()
    await server.wait_closed()


async def test_backend_that_is_not_there_is_a_bad_gateway(
    app: ProxyApplication, gateway: TableGateway
) -> None:
    gateway.lay(make_target("http://127.0.0.1:1"))
    socket = await refused(app, key=MANAGER)
    assert socket.refusal.status == 502
    assert gateway.in_flight.count("demo") == 0


async def test_backend_that_hangs_is_not_waited_for_long(
    app: ProxyApplication, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    backend.handler = hang
    assert upstream_sockets.HANDSHAKE_SECONDS == 10
    monkeypatch.setattr(upstream_sockets, "HANDSHAKE_SECONDS", 0.1)
    socket = await refused(app, key=MANAGER)
    assert socket.refusal.status == 502


async def test_server_that_can_not_say_a_status_closes_before_accepting(
    app: ProxyApplication,
) -> None:
    socket = AsgiSocket(app, PATH, can_refuse_with_a_status=False)
    assert await socket.next() == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "missing_api_key",
    }
    await socket.finish()
