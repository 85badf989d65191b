from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest

from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.server.web import __main__ as web
from llamactl.server.web.acceptor import Acceptor
from tests.support.until import until_async


def test_a_web_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    code = (
        "import resource as r; soft, hard = r.getrlimit(r.RLIMIT_NOFILE);"
        " r.setrlimit(r.RLIMIT_NOFILE, (min(256, hard), hard));"
        " from llamactl.server.web.__main__ import allow_many_connections;"
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


async def test_who_is_let_in_in_the_turn_of_the_stop_is_answered_and_does_not_hold_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entering, stopping = [], asyncio.Event()

    async def slowly(self: Acceptor, client: socket.socket) -> None:
        entering.append(client)
        await stopping.wait()
        await asyncio.sleep(0.02)
        await enter(self, client)

    enter = Acceptor._enter
    monkeypatch.setattr(Acceptor, "_enter", slowly)
    # The first of a stop; and it is not so for this process, in which other tests run.
    monkeypatch.setattr(web, "leave", stopping.set)
    monkeypatch.setattr(web, "GRACE_SECONDS", 60)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = web.Server(web.configuration(application))
    serving: asyncio.Task[Any] = asyncio.create_task(server._serve([listener]))
    await until_async(lambda: server.started, "started")
    clients = [await asyncio.open_connection(*address) for _ in range(3)]
    for _, writer in clients[:2]:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await until_async(lambda: len(entering) == 3, "at the door")
    server.should_exit = True
    # Much sooner than after the grace of those who are in the middle of something.
    ended, _ = await asyncio.wait((serving,), timeout=20)
    server.force_exit = True
    await serving
    assert ended
    answers = [await reader.read() for reader, _ in clients]
    assert [b"answered" in answer for answer in answers] == [True, True, False]
    for _, writer in clients:
        writer.close()
