"""The operations of the seed's swagger that the proxy answers."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from aiohttp import web

from instances.states import DesiredState, Status
from proxy import forward
from proxy.asgi import ProxyApplication
from tests.contract.operations import LLAMA_CPP_UI, OPERATIONS, PROXIED, SWAGGER, Operation
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest, AsgiResponse

IN_ORDER = [operation for operation in OPERATIONS if operation in PROXIED]
NAMED = [operation for operation in IN_ORDER if "{name}" in operation[1]]
UI: Operation = ("GET", f"{LLAMA_CPP_UI}/")


async def carry_out(
    app: ProxyApplication, operation: Operation, *, name: str = "demo", key: str | None = ""
) -> AsgiResponse:
    """Send a request that should succeed, if ``name`` and ``key`` are good."""
    method, path = operation
    if key == "":
        key = MANAGER if path.startswith("/api/") else ALICE
    document = {"model": name} if method == "POST" else None
    # The swagger says /v1/ for every path below it.
    path = "/v1/chat/completions" if path == "/v1/" else path.replace("{name}", name)
    return await AsgiRequest(app, path, method=method, json=document, key=key).finish()


@pytest.fixture(autouse=True)
def llama_server(backend: Backend, gateway: TableGateway) -> None:
    """A running llama-server, which answers the way each operation's clients expect."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/":
            return web.Response(text="<html></html>", content_type="text/html")
        return web.json_response({"ok": True})

    backend.handler = handler
    gateway.lay(make_target(backend.origin, is_llama_server=True))


@pytest.mark.parametrize("operation", IN_ORDER, ids=" ".join)
async def test_a_success_is_as_the_seed_promises(
    app: ProxyApplication, operation: Operation
) -> None:
    method, path = operation
    responses = SWAGGER["paths"][path][method.lower()]["responses"]
    answer = await carry_out(app, operation)
    assert answer.status == 200, answer.body
    schema = responses["200"].get("schema")
    if schema is not None and schema != {"type": "string"}:
        document = {**schema, "definitions": SWAGGER["definitions"]}
        jsonschema.validate(answer.json(), document)


@pytest.mark.parametrize("operation", NAMED, ids=" ".join)
async def test_a_name_that_can_be_none_gets_400(
    app: ProxyApplication, operation: Operation
) -> None:
    assert "400" in SWAGGER["paths"][operation[1]][operation[0].lower()]["responses"]
    answer = await carry_out(app, operation, name="no%20name%21")
    assert (answer.status, set(answer.json())) == (400, {"error", "details"})


async def test_a_body_without_a_model_gets_400(app: ProxyApplication) -> None:
    answer = await AsgiRequest(app, "/v1/completions", json={"prompt": "x"}, key=ALICE).finish()
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("operation", NAMED, ids=" ".join)
async def test_an_unknown_instance_gets_404_where_the_seed_has_400(
    app: ProxyApplication, operation: Operation
) -> None:
    answer = await carry_out(app, operation, name="nobody")
    assert (answer.status, answer.json()["error"]) == (404, "invalid_instance")


@pytest.mark.parametrize(
    "operation",
    [UI, *(operation for operation in NAMED if operation[1].startswith("/api/"))],
    ids=" ".join,
)
async def test_what_never_starts_an_instance_gets_503_from_a_stopped_one(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, operation: Operation
) -> None:
    stopped: dict[str, Any] = {
        "status": Status.STOPPED,
        "desired_state": DesiredState.STOPPED,
        "is_llama_server": True,
    }
    gateway.lay(make_target(backend.origin, **stopped))
    answer = await carry_out(app, operation)
    assert (answer.status, answer.json()["error"]) == (503, "instance_not_running")
    assert gateway.starts == []


@pytest.mark.parametrize("operation", [each for each in IN_ORDER if each != UI], ids=" ".join)
async def test_without_a_key_the_answer_is_401(
    app: ProxyApplication, backend: Backend, operation: Operation
) -> None:
    answer = await carry_out(app, operation, key=None)
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert backend.requests == []


@pytest.mark.parametrize("operation", [*NAMED, ("POST", "/v1/")], ids=" ".join)
async def test_a_backend_that_is_away_gets_502_where_the_seed_has_500(
    app: ProxyApplication,
    gateway: TableGateway,
    operation: Operation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "CRASH_NOTICE_SECONDS", 0.1)
    gateway.lay(make_target("http://127.0.0.1:1", is_llama_server=True))
    answer = await carry_out(app, operation)
    assert answer.status == 502
