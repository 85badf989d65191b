"""Paths below ``/v1`` that are misspelt, of an API without models, or of a newer backend."""

from __future__ import annotations

from typing import Any

import pytest

from instances.backends.registry import BACKENDS
from instances.states import Status
from proxy.asgi import ProxyApplication
from tests.proxy.conftest import ALICE, Backend, TableGateway, make_target, stopped
from tests.support.asgi import AsgiRequest, AsgiResponse

PATHS = BACKENDS["llama_cpp"].served_paths
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
)
FORM_TYPE = [(b"content-type", b"multipart/form-data; boundary=b")]


@pytest.fixture(autouse=True)
def table(gateway: TableGateway, backend: Backend) -> None:
    gateway.lay(make_target(backend.origin, is_llama_server=True, paths=PATHS))


async def ask(
    app: ProxyApplication, path: str, method: str = "POST", key: str | None = ALICE, **more: Any
) -> AsgiResponse:
    if method == "POST" and not more:
        more = {"json": {"model": "demo"}}
    return await AsgiRequest(app, path, method=method, key=key, **more).finish()


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1/chat/completions%20", "/v1/chat/completions"),
        ("/v1/openai/v1/embeddings", "/v1/embeddings"),
        ("/v1/v1/models", "/v1/models"),
        ("/v1/v1/a-newer/path", "/v1/a-newer/path"),
        ("/llama-cpp/demo/v1/v1/completions", "/llama-cpp/demo/v1/completions"),
        ("/llama-cpp/demo//v1/completions", "/llama-cpp/demo/v1/completions"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_misspelt_path_is_404_that_names_the_right_one(
    app: ProxyApplication, backend: Backend, path: str, right: str, method: str
) -> None:
    answer = await ask(app, path, method)
    assert answer.status == 404
    assert f"use {right} " in answer.body.decode()
    assert not backend.requests
    assert (await ask(app, path, method, key=None)).status == 401


async def test_misspelt_path_of_anthropics_client_has_its_shape(app: ProxyApplication) -> None:
    answer = await ask(app, "/v1/v1/messages")
    assert (answer.status, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert "ends without /v1" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1", "/v1/"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_base_url_alone_says_what_it_is(
    app: ProxyApplication, path: str, method: str
) -> None:
    answer = await ask(app, path, method)
    assert answer.status == 404
    assert "is the base URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("DELETE", "/v1/files/file-1"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/assistants"),
        ("POST", "/v1/threads"),
        ("POST", "/v1/vector_stores"),
        ("GET", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/moderations"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("GET", "/v1/messages/batches"),
        ("GET", "/v1/a-newer/path"),
        ("PATCH", "/v1/a-newer/path"),
        ("GET", "/llama-cpp/demo/v1/files"),
    ],
)
async def test_api_without_models_is_404_that_says_so(
    app: ProxyApplication, backend: Backend, method: str, path: str
) -> None:
    answer = await ask(app, path, method)
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (404, "not_found")
    assert error["message"].startswith(f"llamactl has no {path}: ")
    assert not backend.requests


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {}},
        {"body": b""},
        {"body": b"no json"},
        {"json": {"metadata": {}}},
        {"body": FORM, "headers": FORM_TYPE},
    ],
)
async def test_post_without_a_model_is_404_at_an_unknown_path_and_400_at_a_known_one(
    app: ProxyApplication, sent: dict[str, Any]
) -> None:
    unknown = await ask(app, "/v1/audio/voices", **sent)
    assert unknown.status == 404
    assert unknown.json()["error"]["message"].startswith("llamactl has no /v1/audio/voices")
    assert (await ask(app, "/v1/audio/transcriptions", **sent)).status == 400


async def test_wrong_method_of_a_known_path_stays_405(app: ProxyApplication) -> None:
    answer = await ask(app, "/v1/chat/completions", "GET")
    assert (answer.status, answer.header("allow")) == (405, "POST")


async def test_ollamas_path_below_v1_has_its_shape(app: ProxyApplication) -> None:
    answer = await ask(app, "/v1/api/chat", headers=[(b"host", b"me:1")])
    assert answer.status == 404
    assert "http://me:1/v1 " in answer.json()["error"]


# Paths that the type of the backend does not have


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/newer", "/llama-cpp/demo/v1/newer"])
async def test_unknown_path_starts_no_stopped_instance(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str
) -> None:
    gateway.lay(stopped(backend, is_llama_server=True, paths=PATHS))
    for status in (Status.STOPPED, Status.FAILED):
        gateway.lay(stopped(backend, is_llama_server=True, paths=PATHS, status=status))
        answer = await ask(app, path)
        error = answer.json()["error"]
        assert (answer.status, error["code"]) == (404, "not_found")
        assert "the program of demo has no /v1/" in error["message"]
    assert not gateway.starts


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/newer", "/llama-cpp/demo/v1/newer"])
async def test_running_instance_gets_every_path(
    app: ProxyApplication, backend: Backend, path: str
) -> None:
    assert (await ask(app, path)).status == 200
    assert backend.requests[0].path == path.removeprefix("/llama-cpp/demo")


async def test_instance_that_runs_since_a_moment_gets_every_path(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend, paths=PATHS))
    gateway.meanwhile = lambda: gateway.lay(make_target(backend.origin, paths=PATHS))
    assert (await ask(app, "/v1/newer")).status == 200


async def test_unknown_path_waits_for_a_start_under_way(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, paths=PATHS, status=Status.STARTING))
    request = AsgiRequest(app, "/v1/newer", key=ALICE, json={"model": "demo"}).start()
    gateway.meanwhile = lambda: gateway.lay(make_target(backend.origin, paths=PATHS))
    assert (await request.finish()).status == 200
    assert not gateway.starts


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_path_of_the_program_starts_it(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str
) -> None:
    gateway.lay(stopped(backend, paths=PATHS))
    request = AsgiRequest(app, path, key=ALICE, json={"model": "demo"}).start()
    await gateway.start_was_requested.wait()
    gateway.lay(make_target(backend.origin, paths=PATHS, generation=2, observed_generation=2))
    assert (await request.finish()).status == 200
