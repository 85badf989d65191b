"""Ids of requests through the proxy: in responses, at the backend, and in the log."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web
from blockbuster import BlockBuster

from llamactl.core.request_id import current_request
from llamactl.logging import LineFormatter
from proxy.asgi import ProxyApplication
from proxy.exchange import Exchange
from proxy.table.live import LiveTable
from proxy.table.refresh import Refresher
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest, AsgiResponse, AsgiSocket
from tests.support.socket_backend import SocketBackend

CHAT = "/v1/chat/completions"
Header = tuple[bytes, bytes]


async def ask(app: ProxyApplication, *headers: Header, path: str = CHAT) -> AsgiResponse:
    return await AsgiRequest(
        app, path, key=ALICE, json={"model": "demo"}, headers=list(headers)
    ).finish()


def ids(answer: AsgiResponse, name: bytes = b"x-request-id") -> list[str]:
    return [value.decode() for key, value in answer.headers if key == name]


async def test_the_answer_has_our_id_and_neither_the_clients_nor_the_backends(
    app: ProxyApplication, backend: Backend
) -> None:
    async def with_ids(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"X-Request-Id": "backend", "Request-Id": "backend"})

    backend.handler = with_ids
    answer = await ask(app, (b"x-request-id", b"client"))
    (ours,) = ids(answer)
    assert len(bytes.fromhex(ours)) == 16
    assert ids(answer, b"request-id") == []
    assert backend.requests[0].headers.getall("X-Request-Id") == ["client"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/messages", ()), (CHAT, ((b"anthropic-version", b"2023-06-01"),))],
)
async def test_clients_of_anthropics_api_get_it_under_their_name_too(
    app: ProxyApplication, path: str, headers: tuple[Header, ...]
) -> None:
    for model in ("demo", "unknown"):
        answer = await AsgiRequest(
            app, path, key=ALICE, json={"model": model}, headers=list(headers)
        ).finish()
        assert answer.status == (200 if model == "demo" else 404)
        assert ids(answer) == ids(answer, b"request-id") != []


@pytest.mark.parametrize(
    ("sent", "passed"),
    [([], []), ([b"x" * 128], ["x" * 128]), ([b"x" * 129], []), ([b"a", b"b"], [])],
)
async def test_the_backend_gets_the_clients_id_if_it_is_usable(
    app: ProxyApplication, backend: Backend, sent: list[bytes], passed: list[str]
) -> None:
    assert (await ask(app, *((b"x-request-id", each) for each in sent))).status == 200
    assert backend.requests[0].headers.getall("X-Request-Id", []) == passed


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", CHAT, None, 401),
        ("GET", CHAT, ALICE, 405),
        ("OPTIONS", CHAT, None, 204),
        ("GET", "/v1/models", ALICE, 200),
        ("GET", "/v1/models", None, 401),
        ("GET", "/llama-cpp/demo/nowhere", ALICE, 404),
        ("GET", "/api/v1/instances/nope/proxy/", MANAGER, 404),
    ],
)
async def test_answers_of_the_proxys_own_have_an_id(
    app: ProxyApplication, method: str, path: str, key: str | None, status: int
) -> None:
    answer = await AsgiRequest(app, path, method=method, key=key).finish()
    assert answer.status == status
    assert len(ids(answer)) == 1


async def test_a_failure_of_llamactl_has_the_id_of_its_log_line(
    app: ProxyApplication,
    gateway: TableGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(LineFormatter().format(record).splitlines()[0])

    async def fail(*_: object, **__: object) -> None:
        logging.getLogger("anywhere").warning("a line without fields of its own")
        raise ZeroDivisionError

    handler = Handler()
    logging.getLogger().addHandler(handler)
    try:
        monkeypatch.setattr(gateway.upstream, "open", fail)
        answer = await ask(app, (b"x-request-id", b"theirs"))
    finally:
        logging.getLogger().removeHandler(handler)
    (ours,) = ids(answer)
    fields = f" instance=demo request_id={ours} client_request_id=theirs"
    assert answer.status == 500
    assert [line.endswith(fields) for line in lines] == [True, True]


async def test_log_lines_of_a_thread_that_works_for_a_request_have_its_id(
    no_blocking_call: BlockBuster,
) -> None:
    """A requested start is written to the database, and logged, by a thread."""
    no_blocking_call.deactivate()
    refresher = Refresher(LiveTable(), "redis://127.0.0.1:1")
    exchange = Exchange(None)
    current_request.set(exchange)
    assert await refresher.in_thread(current_request.get) is exchange
    await refresher.stop()


async def test_websocket_has_an_id_when_accepted_and_when_refused(
    app: ProxyApplication, sockets: SocketBackend
) -> None:
    path = "/api/v1/instances/demo/proxy/ws"
    client = AsgiSocket(app, path, key=MANAGER)
    accepted = await client.next()
    assert [len(value) for name, value in accepted["headers"] if name == b"x-request-id"] == [32]
    client.disconnect(code=1000, reason="")
    await client.finish()
    refused = AsgiSocket(app, path, key=None)
    await refused.finish()
    assert len(ids(refused.refusal)) == 1


@pytest.mark.parametrize(
    ("configured", "expected"),
    [((), b"no-cache"), (((b"cache-control", b"private"),), b"private")],
)
async def test_event_streams_tell_proxies_in_front_not_to_gather_events(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    configured: tuple[Header, ...],
    expected: bytes,
) -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=b"data: 1\n\n",
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "max-age=60",
                "X-Accel-Buffering": "yes",
            },
        )

    backend.handler = events
    gateway.lay(make_target(backend.origin, response_headers=configured))
    answer = await ask(app)
    found = [pair for pair in answer.headers if pair[0] in (b"cache-control", b"x-accel-buffering")]
    assert sorted(found) == [(b"cache-control", expected), (b"x-accel-buffering", b"no")]
