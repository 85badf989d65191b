"""Rechecks: a change of a moment ago is not refused by a table that is older than the change.

The API's response about a change comes from the database, so a client may send its request before
the event of the change has reached this web process.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from instances.states import DesiredState, Status
from keys.secrets import digest
from proxy.asgi import ProxyApplication
from proxy.table.table import KeyRule, Target
from tests.proxy.conftest import ALICE, BOB, CHARLIE, MANAGER, Backend, TableGateway, make_target
from tests.proxy.conftest import rules as usual_rules
from tests.support.asgi import AsgiRequest, AsgiResponse, AsgiSocket
from tests.support.socket_backend import SocketBackend

CHAT = ("POST", "/v1/chat/completions")
TOKENIZE = ("POST", "/llama-cpp/demo/tokenize")
METRICS = ("GET", "/llama-cpp/demo/metrics")
MODEL = ("GET", "/v1/models/demo")
MANAGED = ("POST", "/api/v1/instances/demo/proxy/tokenize")
PAGE = ("GET", "/llama-cpp/demo/")
SOCKET = "/api/v1/instances/demo/proxy/ws"

STOPPED = {"status": Status.STOPPED, "desired_state": DesiredState.STOPPED}


async def ask(app: ProxyApplication, way: tuple[str, str], key: str | None = ALICE) -> AsgiResponse:
    method, path = way
    body = {"model": "demo"} if method == "POST" else None
    return await AsgiRequest(app, path, method=method, key=key, json=body).finish()


def demo(backend: Backend, **changes: Any) -> Target:
    return make_target(backend.origin, **{"is_llama_server": True, **changes})


@pytest.mark.parametrize(
    ("way", "key"), [(MANAGED, MANAGER), (METRICS, ALICE), (PAGE, None), (CHAT, ALICE)]
)
@pytest.mark.parametrize("status", [Status.STOPPED, Status.SHUTTING_DOWN])
async def test_instance_that_has_started_meanwhile_is_asked(
    app: ProxyApplication,
    gateway: TableGateway,
    backend: Backend,
    way: tuple[str, str],
    key: str | None,
    status: Status,
) -> None:
    gateway.lay(demo(backend, **{**STOPPED, "status": status}, on_demand_start=False))
    gateway.meanwhile = lambda: gateway.lay(demo(backend, generation=2, observed_generation=2))
    assert (await ask(app, way, key)).status == 200
    assert (gateway.refreshes, gateway.starts) == (1, [])


async def test_socket_to_an_instance_that_has_started_meanwhile_is_opened(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, sockets: SocketBackend
) -> None:
    gateway.lay(demo(backend, **STOPPED))
    gateway.meanwhile = lambda: gateway.lay(demo(backend))
    socket = AsgiSocket(app, SOCKET, key=MANAGER)
    assert (await socket.next())["type"] == "websocket.accept"
    socket.disconnect(code=1000, reason="")
    await socket.finish()


async def test_socket_to_an_instance_that_was_stopped_meanwhile_is_told_so(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, unused_tcp_port: int
) -> None:
    gateway.lay(make_target(f"http://127.0.0.1:{unused_tcp_port}"))
    gateway.meanwhile = lambda: gateway.lay(demo(backend, **STOPPED))
    socket = AsgiSocket(app, SOCKET, key=MANAGER)
    await socket.finish()
    assert socket.refusal.status == 503
    assert socket.refusal.json()["error"] == "instance_not_running"


async def test_instance_that_may_be_started_since_a_moment_ago_is(
    app: ProxyApplication, gateway: TableGateway, backend: Backend
) -> None:
    gateway.lay(demo(backend, **STOPPED, on_demand_start=False))
    gateway.meanwhile = lambda: gateway.lay(demo(backend, **STOPPED))
    exchange = AsgiRequest(app, CHAT[1], key=ALICE, json={"model": "demo"}).start()
    await gateway.start_was_requested.wait()
    gateway.lay(demo(backend, generation=2, observed_generation=2))
    assert (await exchange.finish()).status == 200


@pytest.mark.parametrize(
    "outcome",
    [{"status": Status.FAILED, "failure": {"reason": "crashed"}}, STOPPED],
    ids=["failed", "taken back"],
)
async def test_request_after_a_start_that_came_to_nothing_asks_for_another(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, outcome: dict[str, Any]
) -> None:
    gateway.lay(demo(backend, status=Status.STARTING))
    gateway.meanwhile = lambda: gateway.lay(demo(backend, **outcome))
    exchange = AsgiRequest(app, CHAT[1], key=ALICE, json={"model": "demo"}).start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 20)
    gateway.lay(demo(backend, generation=2, observed_generation=2))
    assert (await exchange.finish()).status == 200


async def test_backend_that_has_got_another_key_while_it_was_waited_for_gets_that(
    app: ProxyApplication, gateway: TableGateway, backend: Backend
) -> None:
    gateway.lay(demo(backend, **STOPPED))
    exchange = AsgiRequest(app, CHAT[1], key=ALICE, json={"model": "demo"}).start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 20)
    started = {"generation": 2, "observed_generation": 2, "authorization": "Bearer another"}
    gateway.lay(demo(backend, **started))
    assert (await exchange.finish()).status == 200
    assert backend.requests[0].headers.getall("Authorization") == ["Bearer another"]


async def test_instance_that_has_become_a_llama_server_meanwhile_is_taken_for_one(
    app: ProxyApplication, gateway: TableGateway, backend: Backend
) -> None:
    gateway.lay(demo(backend, is_llama_server=False))
    gateway.meanwhile = lambda: gateway.lay(demo(backend))
    assert (await ask(app, TOKENIZE)).status == 200


async def test_instance_that_has_gone_meanwhile_is_not_found(
    app: ProxyApplication, gateway: TableGateway, backend: Backend
) -> None:
    gateway.lay(demo(backend, **STOPPED))
    gateway.meanwhile = gateway.lay
    assert (await ask(app, MANAGED, MANAGER)).status == 404


@pytest.mark.parametrize(
    ("way", "key"), [(CHAT, ALICE), (TOKENIZE, ALICE), (MODEL, ALICE), (MANAGED, MANAGER)]
)
async def test_instance_made_a_moment_ago_is_found(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, way: tuple[str, str], key: str
) -> None:
    gateway.lay()
    gateway.meanwhile = lambda: gateway.lay(demo(backend))
    assert (await ask(app, way, key)).status == 200


@pytest.mark.parametrize("way", [CHAT, TOKENIZE, MODEL])
@pytest.mark.parametrize("key", [BOB, CHARLIE], ids=["widened", "made"])
async def test_key_made_or_widened_a_moment_ago_opens(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, way: tuple[str, str], key: str
) -> None:
    gateway.lay(demo(backend))
    rule = KeyRule(2, digest(key), frozenset({1}))
    gateway.meanwhile = lambda: gateway.lay(
        demo(backend), keys={**usual_rules(), digest(key): rule}
    )
    assert (await ask(app, way, key)).status == 200


@pytest.mark.parametrize("way", [CHAT, TOKENIZE, MODEL])
async def test_key_that_was_revoked_meanwhile_is_unknown(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, way: tuple[str, str]
) -> None:
    gateway.lay(demo(backend))
    gateway.meanwhile = lambda: gateway.lay(demo(backend), keys={})
    assert (await ask(app, way, BOB)).status == 401


@pytest.mark.parametrize("way", [CHAT, TOKENIZE, MODEL])
async def test_instance_without_permission_is_refused_after_one_refresh(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, way: tuple[str, str]
) -> None:
    gateway.lay(demo(backend))
    assert (await ask(app, way, BOB)).status == 403
    assert gateway.refreshes == 1
    assert not backend.requests


@pytest.mark.parametrize("way", [CHAT, TOKENIZE, MODEL, METRICS])
async def test_permitted_request_needs_no_refresh(
    app: ProxyApplication, gateway: TableGateway, backend: Backend, way: tuple[str, str]
) -> None:
    gateway.lay(demo(backend))
    assert (await ask(app, way)).status == 200
    assert gateway.refreshes == 0
