"""Failures: a backend that ends, stalls or breaks the protocol, and a defect of llamactl."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from instances.states import EVICTED, ON_DEMAND, DesiredState, Status
from proxy import forward
from tests.proxy.conftest import TableGateway, make_target
from tests.proxy.sockets.conftest import Connect
from tests.support.until import until_async
from tests.support.wire import OK, Play, RawBackend, RawClient, Session

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
ONE_EVENT = b"9\r\ndata: 1\n\n\r\n"


@pytest.fixture(autouse=True)
def impatient(gateway: TableGateway) -> None:
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=0.3, idle=0.3)


def playing(*pieces: bytes, stays: bool) -> Play:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(*pieces)
        if stays:
            await session.until_closed()

    return play


async def test_backend_that_never_answers_is_504(client: RawClient, backend: RawBackend) -> None:
    backend.script = playing(stays=True)
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert answer.status == 504
    assert json.loads(answer.body)["error"]["code"] == "backend_stalled"
    assert answer.values(b"x-should-retry") == [b"false"]
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")


async def test_backend_whose_head_never_ends_is_504(client: RawClient, backend: RawBackend) -> None:
    backend.script = playing(b"HTTP/1.1 200 OK\r\nX-A: ", stays=True)
    client.post(CHAT, MODEL)
    assert (await client.answer()).status == 504


async def test_backend_that_ends_in_its_head_is_502(client: RawClient, backend: RawBackend) -> None:
    backend.script = playing(b"HTTP/1.1 200 OK\r\nContent-Le", stays=False)
    client.post(CHAT, MODEL)
    assert (await client.answer()).status == 502


@pytest.mark.parametrize("path", [CHAT, b"/llama-cpp/demo/v1/messages"])
async def test_backend_that_dies_between_its_headers_and_its_first_event_is_asked_again(
    client: RawClient, backend: RawBackend, path: bytes
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(EVENTS)
        if len(backend.requests) == 2:
            await session.send(ONE_EVENT, b"0\r\n\r\n")

    backend.script = play
    client.post(path, MODEL)
    answer = await client.answer()
    assert (answer.status, answer.body, answer.is_whole) == (200, b"data: 1\n\n", True)
    assert len(backend.requests) == 2


async def test_backend_that_is_silent_after_its_headers_is_504(
    client: RawClient, backend: RawBackend
) -> None:
    backend.script = playing(EVENTS, stays=True)
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert answer.status == 504
    assert b"backend_stalled" in answer.body
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")


async def test_headers_of_a_followed_response_come_at_once(
    client: RawClient, backend: RawBackend
) -> None:
    is_open = asyncio.Event()

    async def play(session: Session) -> None:
        await session.request()
        await session.send(EVENTS)
        await is_open.wait()
        await session.send(ONE_EVENT, b"0\r\n\r\n")

    backend.script = play
    client.ask(b"GET /llama-cpp/demo/models/sse")
    # A browser shows a stream as open when it has them; the first event may be hours away.
    async with asyncio.timeout(20):
        head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"ttfb;dur=" in head
    is_open.set()


CUT = {
    "fixed length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    "packed events": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    ),
    "events of a fixed length": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\nhalf"
    ),
}


@pytest.mark.parametrize("stays", [True, False], ids=["stalls", "ends"])
@pytest.mark.parametrize("answer", CUT.values(), ids=CUT.keys())
async def test_body_that_is_not_whole_ends_as_one_that_is_not(
    client: RawClient, backend: RawBackend, answer: bytes, stays: bool
) -> None:
    backend.script = playing(answer, stays=stays)
    client.post(CHAT, MODEL)
    got = await client.answer()
    assert (got.status, got.body, got.is_whole) == (200, b"half", False)
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")


@pytest.mark.parametrize("garbage", [b"xyz\r\n", b"\r\n", b"-5\r\n"])
async def test_garbage_for_a_chunk_is_a_cut(
    client: RawClient, backend: RawBackend, garbage: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"

    async def play(session: Session) -> None:
        await session.request()
        await session.send(head)
        await asyncio.sleep(0.05)
        await session.send(garbage)
        await session.until_closed()

    backend.script = play
    client.post(CHAT, MODEL)
    got = await client.answer()
    assert (got.body, got.is_whole) == (b"half", False)


@pytest.mark.parametrize("stays", [True, False], ids=["stalls", "ends"])
@pytest.mark.parametrize(
    ("path", "is_anthropic"),
    [
        (CHAT, False),
        (b"/v1/messages", True),
        (b"/llama-cpp/demo/v1/chat/completions", False),
        (b"/llama-cpp/demo/v1/messages", True),
        (ANY + b"/v1/messages", True),
        (ANY + b"/completion", False),
    ],
)
async def test_events_that_break_off_end_with_an_error_in_the_shape_of_the_path(
    client: RawClient, backend: RawBackend, path: bytes, is_anthropic: bool, stays: bool
) -> None:
    backend.script = playing(EVENTS, ONE_EVENT, stays=stays)
    client.post(path, MODEL)
    answer = await client.answer()
    assert answer.is_whole
    first, *lines = [line for line in answer.body.split(b"\n") if line]
    assert first == b"data: 1"
    if is_anthropic:
        assert lines.pop(0) == b"event: error"
    (line,) = lines
    document = json.loads(line.removeprefix(b"data: "))
    assert document.get("type") == ("error" if is_anthropic else None)
    assert document["error"]["type"] == ("api_error" if is_anthropic else "server_error")
    assert document["error"]["code"] == ("backend_stalled" if stays else "backend_broke_off")
    # It should leave the connection for the next request.
    backend.script = playing(OK, stays=False)
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == b"{}"


STOPPED = {"desired_state": DesiredState.STOPPED, "status": Status.SHUTTING_DOWN}
INTERRUPTIONS = {
    "stop": ({**STOPPED, "requested_by": "api"}, "stopped_by_operator", "was stopped by an"),
    "stop in the admin": (
        {**STOPPED, "requested_by": "admin:bob"},
        "stopped_by_operator",
        "was stopped by an operator",
    ),
    "restart": (
        {"status": Status.SHUTTING_DOWN, "generation": 2, "requested_by": "api"},
        "backend_broke_off",
        "was restarted by an operator",
    ),
    "new instance": ({"id": 9}, "backend_broke_off", "was deleted by an operator"),
    "crash": ({"status": Status.RESTARTING, "requested_by": "api"}, "backend_broke_off", "ended"),
    "preemption": ({**STOPPED, "requested_by": EVICTED}, "backend_broke_off", "ended"),
    "restart by a request": (
        {"status": Status.STARTING, "generation": 2, "requested_by": ON_DEMAND},
        "backend_broke_off",
        "ended",
    ),
}


@pytest.mark.parametrize("path", [CHAT, b"/llama-cpp/demo/v1/messages"])
@pytest.mark.parametrize(
    ("changes", "code", "words"), INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys()
)
async def test_events_that_an_operator_cut_say_so(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    path: bytes,
    changes: dict[str, Any],
    code: str,
    words: str,
) -> None:
    async def play(session: Session) -> None:
        await session.request()
        await session.send(EVENTS, ONE_EVENT)
        # The table in memory may be older: the next refresh brings the change.
        gateway.meanwhile = lambda: gateway.lay(make_target(backend.origin, **changes))

    backend.script = play
    client.post(path, MODEL)
    answer = await client.answer()
    assert answer.is_whole
    error = json.loads(answer.body.rpartition(b"data: ")[2])["error"]
    assert error["code"] == code
    assert words in error["message"]


async def test_answer_that_an_operators_stop_prevented_says_so(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    stopped = {**STOPPED, "requested_by": "admin:bob"}

    async def play(session: Session) -> None:
        await session.request()
        gateway.meanwhile = lambda: gateway.lay(make_target(backend.origin, **stopped))

    backend.script = play
    # A POST through the instance proxy is not repeated.
    client.post(ANY + b"/completion", MODEL)
    answer = await client.answer()
    document = json.loads(answer.body)
    assert (answer.status, document["error"]) == (503, "stopped_by_operator")
    assert "was stopped by an operator" in document["details"]
    assert answer.values(b"x-should-retry") == [b"false"]


async def test_events_that_come_now_and_then_are_no_stall(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    # Less than all of them take, and far more than the time between two.
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=3, idle=3)

    async def play(session: Session) -> None:
        await session.request()
        await session.send(EVENTS)
        for _ in range(11):
            await session.send(ONE_EVENT)
            await asyncio.sleep(0.3)
        await session.send(b"0\r\n\r\n")

    backend.script = play
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == b"data: 1\n\n" * 11


async def test_no_limit_is_set_where_none_is_wanted(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=0, idle=0)

    async def play(session: Session) -> None:
        await session.request()
        await asyncio.sleep(0.4)
        await session.send(EVENTS)
        await asyncio.sleep(0.4)
        await session.send(ONE_EVENT)
        await asyncio.sleep(0.4)
        await session.send(b"0\r\n\r\n")

    backend.script = play
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert (answer.body, answer.is_whole) == (b"data: 1\n\n", True)


async def test_first_event_may_take_longer_than_the_next(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(first_byte=5, idle=0.2)

    async def play(session: Session) -> None:
        await session.request()
        # vLLM sends its head at once, and its first event after the prompt.
        await session.send(EVENTS)
        await asyncio.sleep(0.6)
        await session.send(ONE_EVENT)
        await session.until_closed()

    backend.script = play
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert answer.body.startswith(b"data: 1\n\n")
    assert b"backend_stalled" in answer.body


async def test_defect_of_llamactl_is_500_in_the_shape_of_the_path_and_in_the_log(
    connect: Connect,
    gateway: TableGateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(gateway.upstream, "open", fail)
    shapes = {}
    for path in (CHAT, b"/v1/messages", ANY + b"/x"):
        client = await connect()
        client.post(path, MODEL)
        answer = await client.answer()
        assert answer.status == 500
        assert b"a defect" not in answer.body
        shapes[path] = json.loads(answer.body)
    assert shapes[CHAT]["error"]["type"] == "server_error"
    assert shapes[b"/v1/messages"]["type"] == "error"
    assert shapes[ANY + b"/x"]["error"] == "internal_error"
    records = [record for record in caplog.records if record.name == "proxy.consumers"]
    assert [getattr(record, "instance", None) for record in records] == ["demo"] * 3
    assert len({getattr(record, "request_id", None) for record in records}) == 3
    assert all(record.exc_info for record in records)


async def test_defect_of_llamactl_within_a_response_is_a_cut(
    client: RawClient, backend: RawBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(response: object, send: object, *_: object, **__: object) -> None:
        await send({"type": "http.response.body", "body": b"half", "more_body": True})  # type: ignore[operator]
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(forward, "relay", fail)
    backend.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    client.post(CHAT, MODEL)
    answer = await client.answer()
    assert (answer.status, answer.body, answer.is_whole) == (200, b"half", False)
    assert await client.is_closed()
