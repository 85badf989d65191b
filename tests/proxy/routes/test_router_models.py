"""``/api/v1/llama-cpp/{name}/models…``: a router's models, with a management key."""

from __future__ import annotations

import json

import pytest

from instances.states import DesiredState, Status
from proxy.asgi import ProxyApplication
from proxy.routes.routes import Route, RouteKind, counts_as_use, may_start, route
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest

PATH = "/api/v1/llama-cpp/demo/models"


@pytest.mark.parametrize(
    ("path", "rest", "model"),
    [
        (PATH, "/models", ""),
        (f"{PATH}/", "/models", ""),
        (f"{PATH}/small/load", "/models/load", "small"),
        (f"{PATH}/small/unload/", "/models/unload", "small"),
        (f"{PATH}/org/m-GGUF:Q4_K_M/load", "/models/load", "org/m-GGUF:Q4_K_M"),
        (f"{PATH}/org%2Fm%20x/load", "/models/load", "org/m x"),
        (f"{PATH}/load/load", "/models/load", "load"),
        (f"{PATH}/../../tools/load", "/models/load", "../../tools"),
    ],
)
def test_the_model_of_the_path_is_never_a_part_of_the_backends_path(
    path: str, rest: str, model: str
) -> None:
    found = route(path)
    assert found is not None
    assert (found.kind, found.instance, found.rest) == (RouteKind.ROUTER_MODELS, "demo", rest)
    assert found.model == model


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/llama-cpp/demo", "/api/v1/llama-cpp/demo/", "/api/v1/llama-cpp//models"),
        *(f"{PATH}/small", f"{PATH}/load", f"{PATH}//load", f"{PATH}/small/delete", f"{PATH}x"),
    ],
)
def test_other_paths_are_not_the_proxys(path: str) -> None:
    assert route(path) is None


def test_looking_is_no_use_and_nothing_starts() -> None:
    looked, changed = route(PATH), route(f"{PATH}/m/load")
    assert isinstance(looked, Route)
    assert isinstance(changed, Route)
    assert not may_start(looked, "GET")
    assert not may_start(changed, "POST")
    assert not counts_as_use(looked, "GET")
    assert counts_as_use(changed, "POST")


async def test_a_management_key_lists_loads_and_unloads(
    app: ProxyApplication, gateway: TableGateway, backend: Backend
) -> None:
    gateway.lay(make_target(backend.origin, is_llama_server=True))
    for path, method, body in (
        (PATH, "GET", b""),
        (f"{PATH}/org/m/load", "POST", b""),
        (f"{PATH}/org%2Fm/unload", "POST", b'{"ignored": 1}'),
    ):
        for key in (None, ALICE):
            refused = await AsgiRequest(app, path, method=method, key=key, body=body).finish()
            assert refused.status == 401
        answer = await AsgiRequest(app, path, method=method, key=MANAGER, body=body).finish()
        assert answer.status == 200
    seen = [(request.method, request.path) for request in backend.requests]
    assert seen == [("GET", "/models"), ("POST", "/models/load"), ("POST", "/models/unload")]
    assert [json.loads(body) if body else None for body in backend.bodies] == [
        None,
        {"model": "org/m"},
        {"model": "org/m"},
    ]


@pytest.mark.parametrize(
    ("changes", "method", "status", "code"),
    [
        ({"is_llama_server": False}, "GET", 400, "invalid_request"),
        ({"status": Status.STOPPED, "desired_state": DesiredState.STOPPED}, "GET", 503, None),
        ({}, "POST", 405, "method_not_allowed"),
        ({"name": "other"}, "GET", 404, "invalid_instance"),
    ],
)
async def test_other_requests_are_refused_and_start_nothing(
    app: ProxyApplication,
    gateway: TableGateway,
    backend: Backend,
    changes: dict[str, object],
    method: str,
    status: int,
    code: str | None,
) -> None:
    gateway.lay(make_target(backend.origin, **{"is_llama_server": True, **changes}))
    answer = await AsgiRequest(app, PATH, method=method, key=MANAGER).finish()
    assert answer.status == status
    if code is not None:
        assert json.loads(answer.body)["error"] == code
    assert not backend.requests
    assert not gateway.starts
