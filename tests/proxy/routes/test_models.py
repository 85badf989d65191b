"""GET /v1/models/{id}: the entry that the list has under this id."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from instances.model_info import ModelInfo
from instances.states import DesiredState, Status
from proxy.asgi import ProxyApplication
from tests.proxy.conftest import (
    ALICE,
    BOB,
    CHARLIE,
    Backend,
    TableGateway,
    make_target,
    stopped,
)
from tests.support.asgi import AsgiRequest
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_stall


def retrieve(
    app: ProxyApplication, name: str, key: str | None = ALICE, method: str = "GET"
) -> AsgiRequest:
    return AsgiRequest(app, f"/v1/models/{name}", method=method, key=key)


async def router(request: web.Request) -> web.StreamResponse:
    return web.json_response({"data": [{"id": "org/b"}, {"id": "a"}]})


async def test_model_is_the_entry_of_the_list(app: ProxyApplication, backend: Backend) -> None:
    listed = await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    answer = await retrieve(app, "demo").finish()
    assert (answer.status, answer.json()) == (200, listed.json()["data"][0])
    assert answer.json()["id"] == "demo"
    # It should start no instance for that.
    assert not backend.requests


@pytest.mark.parametrize("name", ["demo%2Forg%2Fb", "demo/org/b", "demo/a"])
async def test_model_of_a_router_is_found_behind_its_name(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, name: str
) -> None:
    backend.handler = router
    gateway.lay(make_target(backend.origin, served_model=None))
    answer = await retrieve(app, name).finish()
    assert answer.status == 200
    assert answer.json()["id"] == name.replace("%2F", "/")
    assert answer.json()["owned_by"] == "demo"


@pytest.mark.parametrize("name", ["nope", "other/nope", "othe", "other%00", "%FF", "x" * 5000])
async def test_unknown_model_is_404_in_openais_shape(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, name: str
) -> None:
    backend.handler = router
    gateway.lay(make_target(backend.origin, name="other", served_model=None))
    answer = await retrieve(app, name).finish()
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_router_that_does_not_run_lists_none_of_its_models(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(
        make_target(
            backend.origin,
            served_model=None,
            status=Status.STOPPED,
            desired_state=DesiredState.STOPPED,
        )
    )
    answer = await retrieve(app, "demo/a").finish()
    assert answer.status == 404
    assert "instance demo lists no such model at present" in answer.json()["error"]["message"]
    assert (await retrieve(app, "demo").finish()).status == 200
    assert not gateway.starts


@pytest.mark.parametrize(("key", "status"), [(None, 401), (CHARLIE, 401), (BOB, 403), (ALICE, 200)])
async def test_key_decides_who_may_see_it(
    app: ProxyApplication, key: str | None, status: int
) -> None:
    assert (await retrieve(app, "demo", key).finish()).status == status


async def test_models_are_read_only(app: ProxyApplication) -> None:
    assert (await retrieve(app, "demo", method="DELETE").finish()).status == 405


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"data":[' + b'{"":1},' * 140_000 + b'{"id":"a"}]}', id="objects"),
        pytest.param(b'{"data":[{"id":"a"},' + b"[]," * 300_000 + b"{}]}", id="lists"),
        pytest.param(b'{"data":[{"id":"a"}]}' + b" " * 2**24, id="blanks"),
        pytest.param(b'{"data":' + b"[" * 2**19, id="nested"),
    ],
)
async def test_a_routers_endless_list_is_not_parsed(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, body: bytes
) -> None:
    async def hostile(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    backend.handler = hostile
    gateway.lay(make_target(backend.origin, served_model=None))
    async with measured_stall() as stall:
        answer = await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    assert [each["id"] for each in answer.json()["data"]] == ["demo"]
    assert stall.seconds < MAX_STALL_SECONDS


ALIASES = ("gpt-4o", "owner/model:tag", "[odd] 名")


@pytest.mark.parametrize(
    "name", ["gpt-4o", "owner/model:tag", "owner%2Fmodel%3Atag", "%5Bodd%5D%20%E5%90%8D"]
)
async def test_alias_is_a_model_of_its_own(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, name: str
) -> None:
    gateway.lay(make_target(backend.origin, aliases=ALIASES))
    answer = await retrieve(app, name).finish()
    assert answer.status == 200
    assert answer.json()["id"] in ALIASES
    assert (await retrieve(app, name, BOB).finish()).status == 403


@pytest.mark.parametrize("is_listed", [True, False])
async def test_aliases_are_listed_behind_their_instance_unless_hidden(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, is_listed: bool
) -> None:
    gateway.lay(make_target(backend.origin, aliases=ALIASES, lists_aliases=is_listed))
    answer = await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    listed = [model["id"] for model in answer.json()["data"]]
    assert listed == ["demo", *(ALIASES if is_listed else ())]


async def listed(app: ProxyApplication) -> list[dict[str, object]]:
    answer = await AsgiRequest(app, "/v1/models", method="GET", key=ALICE).finish()
    models: list[dict[str, object]] = answer.json()["data"]
    return models


async def test_entry_has_the_fields_of_llama_cpp_and_llama_swap(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    info = ModelInfo(
        context_length=2048,
        meta={"n_ctx": 2048, "n_ctx_train": 32768},
        input_modalities=("text", "image"),
        has_tools=True,
    )
    gateway.lay(stopped(backend, info=info, aliases=("gpt-4o",)))
    own, alias = await listed(app)
    assert own == {
        "id": "demo",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "llamactl",
        "aliases": ["gpt-4o"],
        "status": {"value": "unloaded"},
        "context_length": 2048,
        "max_model_len": 2048,
        "meta": {"n_ctx": 2048, "n_ctx_train": 32768},
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "capabilities": {
            "completion": True,
            "embedding": False,
            "reranking": False,
            "vision": True,
            "audio": False,
            "function_calling": True,
        },
        "supported_parameters": ["tools", "tool_choice"],
    }
    assert alias == {**own, "id": "gpt-4o", "aliases": []}
    assert not backend.requests
    assert not gateway.starts


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({}, {"value": "loaded"}),
        ({"status": Status.STARTING}, {"value": "loading"}),
        ({"generation": 2, "status": Status.STOPPED}, {"value": "loading"}),
        ({"status": Status.FAILED}, {"value": "unloaded", "failed": True}),
        (
            {"desired_state": DesiredState.STOPPED, "status": Status.SHUTTING_DOWN},
            {"value": "unloaded"},
        ),
    ],
)
async def test_status_is_that_of_the_instance(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    state: dict[str, Any],
    status: dict[str, object],
) -> None:
    gateway.lay(make_target(backend.origin, **state))
    (entry,) = await listed(app)
    assert entry["status"] == status
    assert "context_length" not in entry
    assert "meta" not in entry


async def test_entry_of_a_routers_model_has_only_known_facts(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        entry = {
            "id": "a",
            "status": {"value": "sleeping", "args": ["--secret"]},
            "meta": {"n_ctx": 4096, "n_params": "many", "odd": 1},
            "architecture": {"input_modalities": ["audio", "odd", 7], "output_modalities": []},
        }
        odd = {"id": "b", "status": {"value": ["odd"], "failed": True}, "meta": 5}
        return web.json_response({"data": [entry, odd, {"id": 7}, 8]})

    backend.handler = handler
    gateway.lay(make_target(backend.origin, served_model=None))
    _, first, second = await listed(app)
    assert first["status"] == {"value": "sleeping"}
    assert first["meta"] == {"n_ctx": 4096}
    assert first["architecture"] == {"input_modalities": ["audio"], "output_modalities": ["text"]}
    assert second["status"] == {"value": "loaded", "failed": True}
