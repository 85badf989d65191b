"""A gateway without a database: its table is laid by the test, its backend is a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from blockbuster import BlockBuster, blockbuster_ctx

from instances.states import DesiredState, Status
from keys.secrets import digest
from llamactl.config import AppConfig
from proxy.activation.activator import Activator
from proxy.asgi import ProxyApplication
from proxy.body.budget import BodyBudget
from proxy.gateway import Gateway
from proxy.model_discovery import ModelDiscovery
from proxy.table.recheck import Recheck
from proxy.table.table import KeyRule, RoutingTable, Target
from proxy.upstream import Upstream
from tests.support.socket_backend import SocketBackend

ALICE = "llamactl-alice"
"""May use every instance."""
BOB = "llamactl-bob"
"""May use another instance only."""
CHARLIE = "llamactl-charlie"
"""Was revoked: no table knows it."""
MANAGER = "llamactl-mgmt-manager"


@pytest.fixture(autouse=True)
def no_blocking_call() -> Iterator[BlockBuster]:
    """A blocking call on the event loop fails the test that made it."""
    with blockbuster_ctx("proxy") as guard:
        yield guard


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Backend:
    """A backend server of the test, and the requests that it got."""

    handler: Handler
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    origin: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.began.set()
        try:
            return await self.handler(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled.set()
            raise


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """Answers ``{"ok": true}``; give it another ``handler`` for anything else."""

    async def ok(request: web.Request) -> web.StreamResponse:
        return web.json_response({"ok": True})

    backend = Backend(ok)
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{path:.*}", backend.handle)
    server = TestServer(application)
    # A client that hangs up must cancel the handler, as it does in a backend.
    await server.start_server()
    backend.origin = str(server.make_url("")).rstrip("/")
    yield backend
    await server.close()


@pytest.fixture
def sockets(backend: Backend) -> SocketBackend:
    sockets = SocketBackend()
    backend.handler = sockets.handle
    return sockets


def make_target(origin: str, **changes: Any) -> Target:
    target = Target(
        id=1,
        name="demo",
        created=1_700_000_000,
        origin=origin,
        authorization="Bearer of-the-backend",
        served_model="demo",
        on_demand_start=True,
        desired_state=DesiredState.RUNNING,
        status=Status.RUNNING,
        generation=1,
        observed_generation=1,
        failure=None,
    )
    return replace(target, **changes)


def stopped(backend: Backend, **changes: Any) -> Target:
    return make_target(
        backend.origin,
        **{"status": Status.STOPPED, "desired_state": DesiredState.STOPPED, **changes},
    )


def rules() -> dict[bytes, KeyRule]:
    return {
        digest(ALICE): KeyRule(1, digest(ALICE), None),
        digest(BOB): KeyRule(2, digest(BOB), frozenset({99})),
        digest(MANAGER): KeyRule(None, digest(MANAGER), None, is_management=True),
    }


class TableGateway(Gateway):
    """Lays its own table; a requested start is recorded and left to the test."""

    def __init__(self, config: AppConfig, *, timeout_seconds: float = 5.0) -> None:
        super().__init__()
        self.config = config
        self.max_body_bytes = 1000
        self.bodies = BodyBudget(16 * 2**20)
        self.upstream = Upstream()
        self.facts: list[tuple[int, int, Mapping[str, object]]] = []
        """What a backend has told of its model, by instance and generation."""
        self.models = ModelDiscovery(self.live, self.upstream, self._remember)
        self.starts: list[str] = []
        self.changes: list[tuple[str, str, str]] = []
        """Loads and unloads that were requested, with their origin."""
        self.refreshes = 0
        self.meanwhile: Callable[[], None] = lambda: None
        """A change of the database since the table was read: the next refresh brings it."""
        self.start_was_requested = asyncio.Event()
        self.recheck = Recheck(self.live, self._refresh)
        self.activator = Activator(
            self.live, self._start, self.recheck, timeout_seconds=timeout_seconds
        )
        self.is_started = True

    def lay(self, *targets: Target, keys: dict[bytes, KeyRule] | None = None) -> None:
        found = {target.name: target for target in targets}
        self.live.replace(RoutingTable(targets=found, keys=rules() if keys is None else keys))

    async def _remember(self, pk: int, generation: int, facts: Mapping[str, object]) -> None:
        self.facts.append((pk, generation, facts))

    async def _refresh(self) -> None:
        self.refreshes += 1
        self.meanwhile()

    async def load(self, name: str, cause: str, *, may_evict: bool) -> None:
        self.changes.append(("load" if may_evict else "load without eviction", name, cause))

    async def unload(self, name: str, cause: str) -> None:
        self.changes.append(("unload", name, cause))

    async def _start(self, name: str, *, may_evict: bool) -> int:
        self.starts.append(name)
        self.start_was_requested.set()
        target = self.live.table.targets[name]
        requested = replace(
            target, desired_state=DesiredState.RUNNING, generation=target.generation + 1
        )
        self.lay(requested)
        return requested.generation


@pytest.fixture
async def gateway(backend: Backend, config: AppConfig) -> AsyncIterator[TableGateway]:
    gateway = TableGateway(config)
    gateway.lay(make_target(backend.origin))
    yield gateway
    await gateway.upstream.close()


@pytest.fixture
def app(gateway: TableGateway) -> ProxyApplication:
    async def rest(*_: object) -> None:
        raise AssertionError("not a path of the proxy")

    return ProxyApplication(rest, gateway)
