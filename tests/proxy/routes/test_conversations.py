"""Ids of conversations, through the whole consumer: each key has its own."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from keys.secrets import digest
from proxy.asgi import ProxyApplication
from proxy.routes.conversations import with_own_query
from proxy.table.table import UNRESTRICTED, KeyRule
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, make_target, rules
from tests.support.asgi import AsgiRequest

EVE = "llamactl-eve"
CHAT = {"model": "demo", "messages": []}
ID = [(b"X-Conversation-Id".lower(), b"c1")]


@pytest.fixture(autouse=True)
def table(gateway: TableGateway, backend: Backend) -> None:
    eve = KeyRule(7, digest(EVE), None)
    gateway.lay(
        make_target(backend.origin, is_llama_server=True), keys={**rules(), digest(EVE): eve}
    )


async def started(app: ProxyApplication, backend: Backend, path: str, key: str) -> str:
    """The id under which the backend keeps the stream that this key starts as c1."""
    await AsgiRequest(app, path, json=CHAT, key=key, headers=ID).finish()
    return backend.requests[-1].headers["X-Conversation-Id"]


async def test_stream_has_another_id_for_each_key(app: ProxyApplication, backend: Backend) -> None:
    paths = ("/v1/chat/completions", "/llama-cpp/demo/v1/chat/completions")
    of_alice = {await started(app, backend, path, ALICE) for path in paths}
    of_eve = {await started(app, backend, path, EVE) for path in paths}
    assert len(of_alice) == len(of_eve) == 1
    assert of_alice != of_eve
    assert "c1" not in of_alice | of_eve


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("query", [b"conv_id=c1", b"from=0&conv%5Fid=c1", b"conv_id=x&conv_id=c1"])
async def test_stream_is_read_and_ended_by_its_own_key_alone(
    app: ProxyApplication, backend: Backend, method: str, query: bytes
) -> None:
    own = await started(app, backend, "/v1/chat/completions", ALICE)
    for key, reaches_it in ((ALICE, True), (EVE, False)):
        await AsgiRequest(
            app, "/llama-cpp/demo/v1/stream", method=method, key=key, query=query
        ).finish()
        ids = backend.requests[-1].query.getall("conv_id")
        assert (own in ids) is reaches_it
        assert "c1" not in ids


@pytest.mark.parametrize("path", ["/llama-cpp/demo/v1/streams/lookup", "/v1/streams/lookup"])
async def test_lookup_finds_the_keys_own_streams_under_their_own_names(
    app: ProxyApplication, backend: Backend, path: str
) -> None:
    own = await started(app, backend, "/v1/chat/completions", ALICE)

    async def find(request: web.Request) -> web.StreamResponse:
        asked = json.loads(backend.bodies[-1])["conversation_ids"]
        return web.json_response([{"conversation_id": own}] if own in asked else [])

    backend.handler = find
    body = {"model": "demo", "conversation_ids": ["c1"]}
    answer = await AsgiRequest(app, path, json=body, key=ALICE).finish()
    assert answer.json() == [{"conversation_id": "c1"}]
    assert (await AsgiRequest(app, path, json=body, key=EVE).finish()).json() == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", b'{"conversation_ids":[1]}'])
async def test_lookup_that_can_not_be_made_the_keys_own_is_refused(
    app: ProxyApplication, backend: Backend, body: bytes
) -> None:
    path = "/llama-cpp/demo/v1/streams/lookup"
    assert (await AsgiRequest(app, path, body=body, key=ALICE).finish()).status == 400
    assert not backend.requests


async def test_management_key_reaches_every_id_through_the_instance_proxy(
    app: ProxyApplication, backend: Backend
) -> None:
    path = "/api/v1/instances/demo/proxy/v1/stream"
    await AsgiRequest(
        app, path, method="GET", key=MANAGER, query=b"conv_id=c1", headers=ID
    ).finish()
    assert backend.requests[0].query["conv_id"] == "c1"
    assert backend.requests[0].headers["X-Conversation-Id"] == "c1"


def test_without_required_keys_ids_stay_as_they_are() -> None:
    assert with_own_query(b"a=1&conv_id=c1&&b", UNRESTRICTED) == b"a=1&conv_id=c1&&b"
