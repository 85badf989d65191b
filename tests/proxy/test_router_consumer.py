"""llama.cpp's router API at the root: what each path answers, starts and needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from instances.states import DesiredState, Status
from keys.secrets import digest
from proxy.asgi import ProxyApplication
from proxy.table.table import KeyRule
from tests.proxy.conftest import (
    ALICE,
    BOB,
    CHARLIE,
    MANAGER,
    Backend,
    TableGateway,
    make_target,
    rules,
    stopped,
)
from tests.support.asgi import AsgiRequest

CALLS = {
    "/chat/completions": "/v1/chat/completions",
    "/rerank": "/v1/rerank",
    "/reranking": "/v1/rerank",
    "/completion": "/completion",
    "/infill": "/infill",
    "/embedding": "/embedding",
    "/tokenize": "/tokenize",
    "/detokenize": "/detokenize",
    "/apply-template": "/apply-template",
}
NAMED = b'{"model": "demo", "n": 9007199254740993}'


def get(app: ProxyApplication, path: str, key: str | None = ALICE) -> AsgiRequest:
    path, _, query = path.partition("?")
    return AsgiRequest(app, path, method="GET", key=key, query=query.encode())


def post(
    app: ProxyApplication, path: str, body: bytes = NAMED, key: str | None = ALICE
) -> AsgiRequest:
    path, _, query = path.partition("?")
    return AsgiRequest(app, path, key=key, body=body, query=query.encode())


@pytest.mark.parametrize(("path", "sent"), CALLS.items())
async def test_call_at_the_root_goes_to_the_model_of_its_body(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str, sent: str
) -> None:
    gateway.lay(make_target(backend.origin, served_model="file.gguf", aliases=("x:y",)))
    answer = await post(app, path, b'{"model": "x:y", "n": 9007199254740993}').finish()
    assert answer.status == 200
    assert backend.requests[0].path == sent
    assert backend.bodies == [b'{"model": "file.gguf", "n": 9007199254740993}']


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("key", "body", "status"),
    [
        (None, NAMED, 401),
        (CHARLIE, NAMED, 401),
        (BOB, NAMED, 403),
        (ALICE, b'{"model": "nope"}', 404),
        (ALICE, b"{}", 400),
        (ALICE, b"", 400),
    ],
)
async def test_refusal_at_the_root_has_openais_shape(
    app: ProxyApplication,
    backend: Backend,
    path: str,
    key: str | None,
    body: bytes,
    status: int,
) -> None:
    answer = await post(app, path, body, key).finish()
    assert answer.status == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert not backend.requests


@pytest.mark.parametrize("path", [*CALLS, "/v1/chat/completions", "/v1/responses"])
async def test_autoload_false_starts_nothing(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str
) -> None:
    gateway.lay(stopped(backend))
    answer = await post(app, f"{path}?autoload=false").finish()
    assert (answer.status, answer.json()["error"]["code"]) == (400, "model_not_loaded")
    assert "model is not loaded" in answer.json()["error"]["message"]
    assert not gateway.starts
    gateway.lay(make_target(backend.origin))
    assert (await post(app, f"{path}?autoload=false").finish()).status == 200


async def test_autoload_false_does_not_wait_for_a_load(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.STARTING))
    answer = await post(app, "/completion?autoload=false").finish()
    assert answer.status == 400


async def test_autoload_changes_no_request_that_starts_nothing_anyway(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend, is_llama_server=True))
    for path in ("/llama-cpp/demo/health", "/api/v1/instances/demo/proxy/health"):
        answer = await get(app, f"{path}?autoload=false", MANAGER).finish()
        assert (answer.status, answer.json()["error"]) == (503, "instance_not_running")
    answer = await post(app, "/llama-cpp/demo/completion?autoload=0").finish()
    assert (answer.status, answer.json()["error"]) == (400, "model_not_loaded")


async def test_call_without_autoload_starts_the_instance(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend, is_llama_server=True, paths=frozenset()))
    request = post(app, "/infill").start()
    await gateway.start_was_requested.wait()
    assert gateway.starts == ["demo"]
    gateway.lay(make_target(backend.origin, generation=2, observed_generation=2))
    assert (await request.finish()).status == 200


@pytest.mark.parametrize("path", ["/infill", "/completion", "/apply-template", "/embedding"])
async def test_path_of_llama_cpp_alone_starts_no_other_backend(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str
) -> None:
    gateway.lay(stopped(backend, paths=frozenset({"/v1/chat/completions", "/tokenize"})))
    assert (await post(app, path).finish()).status == 404
    assert not gateway.starts


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
@pytest.mark.parametrize("key", [None, ALICE, CHARLIE])
async def test_health_needs_no_key_and_asks_no_backend(
    app: ProxyApplication, backend: Backend, path: str, key: str | None
) -> None:
    answer = await get(app, path, key).finish()
    assert (answer.status, answer.json()) == (200, {"status": "ok"})
    assert not backend.requests
    assert (await post(app, path, key=key).finish()).status == 405


async def test_models_at_the_root_are_those_of_v1(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend, status=Status.FAILED))
    listed = await get(app, "/models").finish()
    assert listed.json() == (await get(app, "/v1/models").finish()).json()
    assert listed.json()["data"][0]["status"] == {"value": "unloaded", "failed": True}
    assert (await get(app, "/models", None).finish()).status == 401
    assert (await get(app, "/models?reload=1&autoload=true", ALICE).finish()).status == 200
    assert not gateway.starts


async def test_props_without_a_model_are_those_of_a_router(app: ProxyApplication) -> None:
    answer = await get(app, "/props?autoload=false").finish()
    assert (answer.status, answer.json()["role"]) == (200, "router")
    assert answer.json()["max_instances"] == 1
    # It should not tell a key how many instances it may not use.
    assert (await get(app, "/props", BOB).finish()).json()["max_instances"] == 0
    assert answer.json()["default_generation_settings"]["n_ctx"] == 0
    assert (await get(app, "/props", None).finish()).status == 401
    assert (await post(app, "/props").finish()).status == 405


async def test_props_of_a_model_are_its_backends(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, is_llama_server=True, aliases=("a",)))
    for model in ("demo", "a"):
        answer = await get(app, f"/props?model={model}&autoload=true&api_key=x").finish()
        assert (answer.status, answer.json()) == (200, {"ok": True})
    assert [str(request.rel_url) for request in backend.requests] == ["/props", "/props"]
    assert backend.requests[0].headers["authorization"] == "Bearer of-the-backend"


async def test_props_of_a_routers_model_load_it_not(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, is_llama_server=True, served_model=None))
    await get(app, "/props?model=demo%2Forg%2Fm&autoload=true").finish()
    assert backend.requests[0].query_string == "model=org/m&autoload=false"


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        (None, "demo", 401),
        (BOB, "demo", 403),
        (ALICE, "nope", 404),
        (ALICE, "%FF", 404),
        (ALICE, "demo", 400),
        (MANAGER, "demo", 400),
    ],
)
async def test_props_of_a_stopped_model_start_nothing(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    key: str | None,
    model: str,
    status: int,
) -> None:
    gateway.lay(stopped(backend, is_llama_server=True))
    answer = await get(app, f"/props?model={model}", key).finish()
    assert answer.status == status
    assert not gateway.starts
    assert not backend.requests


async def test_props_of_another_backend_are_refused(app: ProxyApplication) -> None:
    answer = await get(app, "/props?model=demo").finish()
    assert (answer.status, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize(
    ("key", "body", "status"),
    [
        (None, NAMED, 401),
        (CHARLIE, NAMED, 401),
        (BOB, NAMED, 403),
        (MANAGER, b'{"model": "nope"}', 404),
        (MANAGER, b"", 400),
        (MANAGER, b'{"model": 7}', 400),
        (MANAGER, b'{"model": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_load_and_unload_need_a_key_for_the_instance_and_a_model(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    path: str,
    key: str | None,
    body: bytes,
    status: int,
) -> None:
    is_load = path == "/models/load"
    gateway.lay(stopped(backend) if is_load else make_target(backend.origin))
    answer = await post(app, path, body, key).finish()
    assert answer.status == status
    assert "message" in answer.json()["error"]
    assert not gateway.changes


async def test_management_key_loads_and_unloads_an_instance(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend, aliases=("a",)))
    loaded = await post(app, "/models/load", b'{"model": "a", "x": 1}', MANAGER).finish()
    assert (loaded.status, loaded.json()) == (200, {"success": True})
    refused = await post(app, "/models/unload", NAMED, MANAGER).finish()
    assert (refused.status, "not running" in refused.json()["error"]["message"]) == (400, True)
    gateway.lay(make_target(backend.origin))
    refused = await post(app, "/models/load", NAMED, MANAGER).finish()
    assert (refused.status, "already running" in refused.json()["error"]["message"]) == (400, True)
    unloaded = await post(app, "/models/unload", NAMED, MANAGER).finish()
    assert (unloaded.status, unloaded.json()) == (200, {"success": True})
    assert gateway.changes == [("load", "demo", "api"), ("unload", "demo", "api")]
    assert not backend.requests


def keys_with(*, start: bool = False, stop: bool = False) -> dict[bytes, KeyRule]:
    """Alice's key with these rights to the instance."""
    these, none = frozenset({1}), frozenset[int]()
    rule = KeyRule(
        1,
        digest(ALICE),
        these,
        startable_ids=these if start else none,
        evicting_ids=none,
        stoppable_ids=these if stop else none,
    )
    return {**rules(), rule.digest: rule}


async def test_load_needs_can_start_and_unload_can_stop(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    start, stop = keys_with(start=True), keys_with(stop=True)
    for target, path, allowing, other in (
        (stopped(backend), "/models/load", start, stop),
        (make_target(backend.origin), "/models/unload", stop, start),
    ):
        gateway.lay(target, keys=other)
        refused = await post(app, path).finish()
        assert (refused.status, refused.json()["error"]["code"]) == (403, "permission_denied")
        gateway.lay(target, keys=allowing)
        assert (await post(app, path).finish()).status == 200
    assert gateway.changes == [
        ("load without eviction", "demo", "proxy:load"),
        ("unload", "demo", "proxy:unload"),
    ]


async def test_key_loads_only_what_its_requests_may_start(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    for changes in ({"on_demand_start": False}, {"stop_hold_until": soon}):
        gateway.lay(stopped(backend, requested_by="api", **changes))
        assert (await post(app, "/models/load").finish()).status == 503
    assert not gateway.changes
    assert (await post(app, "/models/load", key=MANAGER).finish()).status == 200


async def test_open_inference_gives_nobody_the_right_to_unload(
    app: ProxyApplication, gateway: TableGateway
) -> None:
    auth = gateway.config.auth.model_copy(update={"require_inference_auth": False})
    gateway.config = gateway.config.model_copy(update={"auth": auth})
    assert (await post(app, "/models/unload", key=None).finish()).status == 403
    assert (await post(app, "/models/unload", key=MANAGER).finish()).status == 200


async def test_model_of_a_router_is_loaded_by_the_router(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, is_llama_server=True, served_model=None))
    for path in ("/models/load", "/models/unload"):
        assert (await post(app, path, b'{"model": "demo/org/m"}', MANAGER).finish()).status == 200
    assert [request.path for request in backend.requests] == ["/models/load", "/models/unload"]
    assert [json.loads(body) for body in backend.bodies] == [{"model": "org/m"}] * 2
    gateway.lay(
        make_target(
            backend.origin,
            is_llama_server=True,
            served_model=None,
            status=Status.STOPPED,
            desired_state=DesiredState.STOPPED,
        )
    )
    refused = await post(app, "/models/load", b'{"model": "demo/org/m"}', MANAGER).finish()
    assert refused.status == 400
    assert not gateway.starts
