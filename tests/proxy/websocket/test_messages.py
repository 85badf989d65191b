from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llamactl.core.websocket_limits import MAX_MESSAGE_BYTES
from proxy.asgi import ProxyApplication
from proxy.websocket import relay
from proxy.websocket.relay import backend_ending, client_ending
from tests.proxy.conftest import MANAGER, Backend, TableGateway
from tests.support.asgi import AsgiSocket
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_stall
from tests.support.socket_backend import SocketBackend, until_it_stalls

PATH = "/api/v1/instances/demo/proxy/ws"
ACCEPT = "websocket.accept"


async def opened(app: ProxyApplication, **options: Any) -> AsgiSocket:
    socket = AsgiSocket(app, PATH, key=MANAGER, **options)
    assert (await socket.next())["type"] == ACCEPT
    return socket


async def test_text_and_binary_go_both_ways(app: ProxyApplication, sockets: SocketBackend) -> None:
    socket = await opened(app)
    for content in ("héllo", b"\x00\xff", "", b"", "x" * 100_000):
        socket.put(content)
        answer = await socket.next()
        assert answer["type"] == "websocket.send"
        assert (answer["text"] if isinstance(content, str) else answer["bytes"]) == content
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_fragments_arrive_as_one_message(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    async def in_pieces(socket: web.WebSocketResponse) -> None:
        transport = socket._req.transport  # type: ignore[union-attr]
        assert transport is not None
        # Text "ab", not final; a ping in between; continuation "c", final.
        transport.write(b"\x01\x02ab" + b"\x89\x01p" + b"\x80\x01c")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await socket.close()

    sockets.script = in_pieces
    socket = await opened(app)
    assert await socket.next() == {"type": "websocket.send", "text": "abc"}
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_backend_chooses_the_subprotocol(
    app: ProxyApplication, sockets: SocketBackend, backend: Backend
) -> None:
    sockets.subprotocols = ("v2", "v1")
    socket = AsgiSocket(app, PATH, key=MANAGER, subprotocols=["v1", "v2"])
    accept = await socket.next()
    assert backend.requests[0].headers["Sec-WebSocket-Protocol"] == "v1,v2"
    assert (accept["type"], accept["subprotocol"]) == (ACCEPT, "v1")
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_no_subprotocol_is_made_up(app: ProxyApplication, sockets: SocketBackend) -> None:
    socket = AsgiSocket(app, PATH, key=MANAGER, subprotocols=["v1"])
    assert (await socket.next())["subprotocol"] is None
    socket.disconnect(code=1000, reason="")
    await socket.finish()


@pytest.mark.parametrize(
    ("closing", "code", "reason"),
    [
        ({"code": 1000, "reason": ""}, 1000, ""),
        ({"code": 4321, "reason": "enough"}, 4321, "enough"),
        ({"code": 1012, "reason": ""}, 1012, ""),
        ({"code": 1005, "reason": ""}, 1000, ""),
        # Connections that broke.
        ({"code": 1005}, 1001, "the client went away"),
        ({"code": 1006}, 1001, "the client went away"),
    ],
)
async def test_backend_is_told_how_the_client_ended_it(
    app: ProxyApplication,
    gateway: TableGateway,
    sockets: SocketBackend,
    closing: dict[str, object],
    code: int,
    reason: str,
) -> None:
    socket = await opened(app)
    assert gateway.in_flight.count("demo") == 1
    socket.disconnect(**closing)
    await socket.finish()
    await sockets.end()
    assert sockets.last is not None
    assert (sockets.last.data, sockets.last.extra) == (code, reason)
    assert gateway.in_flight.count("demo") == 0
    assert socket.sent.empty()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "bye"), (1008, "no such model"), (3000, ""), (4999, "ü")],
)
async def test_client_is_told_how_the_backend_ended_it(
    app: ProxyApplication, gateway: TableGateway, sockets: SocketBackend, code: int, reason: str
) -> None:
    async def say_and_close(socket: web.WebSocketResponse) -> None:
        await socket.send_str("last")
        await socket.close(code=code, message=reason.encode())

    sockets.script = say_and_close
    socket = await opened(app)
    assert (await socket.next())["text"] == "last"
    assert await socket.next() == {"type": "websocket.close", "code": code, "reason": reason}
    await socket.finish()
    # It should be the code that the backend gets back, too.
    await sockets.end()
    assert sockets.close_code == code
    assert gateway.in_flight.count("demo") == 0


async def test_backend_that_breaks_off_closes_the_client_with_1011(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    async def break_off(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        transport = socket._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()

    sockets.script = break_off
    socket = await opened(app)
    socket.put("go on")
    closing = await socket.next()
    assert (closing["type"], closing["code"]) == ("websocket.close", 1011)
    await socket.finish()


async def test_last_messages_of_a_backend_that_ended_reach_a_client_that_still_sends(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    async def leave(socket: web.WebSocketResponse) -> None:
        await socket.send_str("last")
        await socket.close(code=4000)

    sockets.script = leave
    socket = await opened(app)
    socket.is_reading.clear()
    await sockets.end()
    for _ in range(3):
        socket.put("are you there?")
    socket.is_reading.set()
    assert (await socket.next())["text"] == "last"
    assert (await socket.next())["code"] == 4000
    await socket.finish()


async def test_message_of_the_backend_that_is_too_large_ends_it_with_1009(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    async def too_much(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(bytes(MAX_MESSAGE_BYTES + 1))
        await socket.receive()

    sockets.script = too_much
    socket = await opened(app)
    closing = await socket.next()
    assert (closing["type"], closing["code"]) == ("websocket.close", 1009)
    await socket.finish()


async def test_message_as_large_as_may_be_goes_both_ways(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    socket = await opened(app)
    socket.put(bytes(MAX_MESSAGE_BYTES))
    assert len((await socket.next())["bytes"]) == MAX_MESSAGE_BYTES
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_backend_waits_for_a_client_that_does_not_read(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    piece, number = bytes(2**16), 2000
    sent = 0

    async def flood(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        for _ in range(number):
            await socket.send_bytes(piece)
            sent += 1
        await socket.close()

    sockets.script = flood
    socket = await opened(app)
    socket.is_reading.clear()
    # The buffers of two sockets take some of it, but not all 128 MB.
    assert await until_it_stalls(lambda: sent) < number // 2
    socket.is_reading.set()
    for _ in range(number):
        assert len((await socket.next())["bytes"]) == len(piece)
    assert (await socket.next())["code"] == 1000
    await socket.finish()


async def test_client_waits_for_a_backend_that_does_not_read(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    piece, number = bytes(2**16), 2000
    may_read = asyncio.Event()

    async def read_late(socket: web.WebSocketResponse) -> None:
        await may_read.wait()
        for _ in range(number):
            assert (await socket.receive()).data == piece
        await socket.send_str("all of it")
        await socket.receive()
        await socket.close()

    sockets.script = read_late
    socket = await opened(app)
    for _ in range(number):
        socket.put(piece)
    assert await until_it_stalls(lambda: socket.received) < number // 2
    may_read.set()
    assert (await socket.next(30))["text"] == "all of it"
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_send_to_a_disconnected_client_waits_for_its_close_code(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    async def tick_on(socket: web.WebSocketResponse) -> None:
        async def tick() -> None:
            while True:
                await socket.send_str("tick")
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        await socket.receive()
        ticking.cancel()
        await socket.close()

    sockets.script = tick_on
    socket = await opened(app)
    await socket.next()
    socket.is_gone = True
    await asyncio.sleep(0.05)
    socket.disconnect(code=4002, reason="")
    await socket.finish()
    await sockets.end()
    assert sockets.close_code == 4002


async def test_cancelled_relay_closes_the_backend_with_a_close_frame(
    app: ProxyApplication, gateway: TableGateway, sockets: SocketBackend
) -> None:
    socket = await opened(app)
    socket.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await socket.finish()
    await sockets.end()
    assert sockets.close_code == 1001
    assert gateway.in_flight.count("demo") == 0


async def test_client_that_never_reads_can_not_keep_the_relay(
    app: ProxyApplication, sockets: SocketBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "CLIENT_CLOSE_SECONDS", 0.2)

    async def close(socket: web.WebSocketResponse) -> None:
        await socket.close()

    socket = await opened(app)
    sockets.script = close
    other = await opened(app)
    other.is_reading.clear()
    await other.finish()
    socket.disconnect(code=1000, reason="")
    await socket.finish()


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65535])
def test_code_that_must_not_be_in_a_frame_is_never_sent(code: int) -> None:
    assert client_ending({"code": code, "reason": ""}).code == 1001
    closing = aiohttp.WSMessage(aiohttp.WSMsgType.CLOSE, code, "")
    assert backend_ending(closing).code == (1011 if code else 1000)


async def test_a_flood_of_small_messages_is_relayed_in_turns(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    count = 20_000

    async def flood(socket: web.WebSocketResponse) -> None:
        transport = socket._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(b"\x82\x01a" * count)
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await socket.close()

    sockets.script = flood
    async with measured_stall() as stall:
        socket = await opened(app)
        for _ in range(count):
            assert (await socket.next())["bytes"] == b"a"
        socket.disconnect(code=1000, reason="")
        await socket.finish()
    assert stall.seconds < MAX_STALL_SECONDS
