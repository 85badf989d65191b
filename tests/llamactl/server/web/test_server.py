"""The web process: its limit of open files, and its shutdown on a real socket."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest

from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.server.web import server as web
from llamactl.server.web.acceptor import Acceptor
from llamactl.server.web.http import HttpProtocol
from tests.support.until import until_async


def test_a_web_process_raises_its_limit_of_open_files_to_the_hard_limit() -> None:
    code = (
        "import resource as r; soft, hard = r.getrlimit(r.RLIMIT_NOFILE);"
        " r.setrlimit(r.RLIMIT_NOFILE, (min(256, hard), hard));"
        " from llamactl.server.web.server import allow_many_connections;"
        " allow_many_connections(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert done.stdout.split() == [str(hard), str(hard)]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answered"})


async def test_a_connection_accepted_in_the_turn_of_the_shutdown_is_served_and_does_not_delay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connecting, stopping = [], asyncio.Event()

    async def slowly(self: Acceptor, client: socket.socket) -> None:
        connecting.append(client)
        await stopping.wait()
        await asyncio.sleep(0.02)
        await connect(self, client)

    connect = Acceptor._connect
    monkeypatch.setattr(Acceptor, "_connect", slowly)
    # The first step of a shutdown; the flag itself is process-wide, and other tests run here.
    monkeypatch.setattr(web, "begin_shutdown", stopping.set)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    config = web.uvicorn_config(application)
    config.timeout_graceful_shutdown = 60
    server = web.Server(config)
    serving: asyncio.Task[Any] = asyncio.create_task(server._serve([listener]))
    await until_async(lambda: server.started, "started")
    clients = [await asyncio.open_connection(*address) for _ in range(3)]
    for _, writer in clients[:2]:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await until_async(lambda: len(connecting) == 3, "accepted")
    server.should_exit = True
    # It should not wait for the grace period of requests in flight.
    ended, _ = await asyncio.wait((serving,), timeout=20)
    server.force_exit = True
    await serving
    assert ended
    answers = [await reader.read() for reader, _ in clients]
    assert [b"answered" in answer for answer in answers] == [True, True, False]
    assert [b"connection: close" in answer for answer in answers] == [True, True, False]
    for _, writer in clients:
        writer.close()


async def test_a_request_right_behind_a_response_of_the_shutdown_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == "/next":
            await application(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await may_end.wait()
        await send({"type": "http.response.body", "body": b"last"})

    monkeypatch.setattr(web, "begin_shutdown", lambda: None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = web.Server(web.uvicorn_config(stream), drain_seconds=2.0)
    serving: asyncio.Task[Any] = asyncio.create_task(server._serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"first\r\n")
    assert b"connection: close" not in head
    server.should_exit = True
    (connection,) = server.server_state.connections
    assert isinstance(connection, HttpProtocol)
    await until_async(lambda: connection.timeout_keep_alive == 2.0, "shut down")
    may_end.set()
    assert b"last" in await reader.readuntil(b"0\r\n\r\n")
    # It should still answer on this connection, whose response did not announce a close.
    writer.write(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    response = await reader.read()
    assert b"answered" in response
    assert b"connection: close" in response
    await serving
    writer.close()


async def test_the_date_of_a_response_is_that_of_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, may_respond = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.set()
            await may_respond.wait()
        await application(scope, receive, send)

    monkeypatch.setattr(web, "begin_shutdown", lambda: None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = web.Server(web.uvicorn_config(slow))
    serving: asyncio.Task[Any] = asyncio.create_task(server._serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await asked.wait()
    # As if the request had waited for a minute.
    date = "Fri, 15 Jan 2027 08:00:00 GMT"
    monkeypatch.setattr("uvicorn.server.formatdate", lambda *_, **__: date)
    expected = (b"date", date.encode())
    await until_async(lambda: expected in server.server_state.default_headers, "a tick")
    may_respond.set()
    assert b"date: %b\r\n" % date.encode() in await reader.read()
    server.should_exit = True
    await serving
    writer.close()


async def test_the_backends_port_is_reached_with_and_without_the_path_of_its_url(
    override: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(server={"backend_ui_url": "https://ui.example/ui"})
    monkeypatch.setattr(web, "begin_shutdown", lambda: None)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = web.Server(web.uvicorn_config(application), ui_port=address[1])
    serving: asyncio.Task[Any] = asyncio.create_task(server._serve([listener]))
    statuses = []
    for path in ("/llama-cpp/x/", "/ui/llama-cpp/x/", "/ui/admin/", "/other/llama-cpp/x/"):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        statuses.append((await reader.read())[9:12])
        writer.close()
    assert statuses == [b"200", b"200", b"404", b"404"]
    server.should_exit = True
    await serving
