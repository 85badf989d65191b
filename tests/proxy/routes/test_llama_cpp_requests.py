"""``/llama-cpp/{name}/…`` through the whole consumer, in front of a real server."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from aiohttp import web

from instances.states import DesiredState, Status
from proxy.asgi import ProxyApplication
from proxy.routes.web_ui import MAX_UNPACKED_BYTES
from proxy.table.table import Target
from tests.proxy.conftest import ALICE, BOB, CHARLIE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest, AsgiResponse
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_memory, measured_stall

PAGE = b"<!doctype html>" + b"page " * 50_000


def llama_server(backend: Backend, **changes: Any) -> Target:
    return make_target(backend.origin, is_llama_server=True, **changes)


def stopped(backend: Backend) -> Target:
    return llama_server(backend, status=Status.STOPPED, desired_state=DesiredState.STOPPED)


@pytest.fixture(autouse=True)
def table(gateway: TableGateway, backend: Backend) -> None:
    gateway.lay(
        llama_server(backend), make_target(backend.origin, id=2, name="vllm", served_model="m")
    )


@pytest.fixture
def web_ui(backend: Backend) -> None:
    """As llama-server: packed files, no others; the endpoints want its key."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            return web.json_response({"ok": True})
        if request.path not in ("/", "/bundle.js"):
            return web.json_response({"error": {"message": "Invalid API Key"}}, status=401)
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return web.Response(text="Error: gzip is not supported by this browser", status=415)
        headers = {"Content-Encoding": "gzip", "ETag": '"1"', "Content-Type": "text/html"}
        return web.Response(body=gzip.compress(PAGE), headers=headers)

    backend.handler = serve


async def ask(
    app: ProxyApplication, path: str, key: str | None = ALICE, **more: Any
) -> AsgiResponse:
    return await AsgiRequest(
        app, f"/llama-cpp/{path}", key=key, **{"method": "GET", **more}
    ).finish()


@pytest.mark.usefixtures("web_ui")
@pytest.mark.parametrize("path", ["demo/", "demo/bundle.js", "d%65mo/"])
async def test_page_and_its_files_need_no_key(
    app: ProxyApplication, backend: Backend, path: str
) -> None:
    answer = await ask(app, path, None, headers=[(b"accept-encoding", b"br, gzip")])
    assert (answer.status, answer.header("content-encoding")) == (200, "gzip")
    assert (answer.header("vary"), answer.header("etag")) == ("Accept-Encoding", '"1"')
    assert gzip.decompress(answer.body) == PAGE


@pytest.mark.usefixtures("web_ui")
@pytest.mark.parametrize(
    "said", [[], [(b"accept-encoding", b"identity"), (b"range", b"bytes=0-9")]]
)
async def test_page_comes_unpacked_to_a_client_without_gzip(
    app: ProxyApplication, said: list[tuple[bytes, bytes]]
) -> None:
    answer = await ask(app, "demo/", None, headers=said)
    assert (answer.status, answer.body, answer.is_complete) == (200, PAGE, True)
    for name in ("content-encoding", "content-length", "etag"):
        assert answer.header(name) is None
    assert answer.header("vary") == "Accept-Encoding"


def packed_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    zeros = bytes(2**20)
    pieces = [packer.compress(zeros) for _ in range(size // 2**20)]
    return b"".join((*pieces, packer.flush()))


BOMB = packed_zeros(2 * MAX_UNPACKED_BYTES)


@pytest.mark.parametrize(
    "packed",
    [BOMB, gzip.compress(PAGE)[:-20], gzip.compress(PAGE)[:200], b"no gzip" * 100],
)
async def test_page_that_is_no_gzip_or_a_bomb_is_cut(
    app: ProxyApplication, backend: Backend, packed: bytes
) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    backend.handler = serve
    with measured_memory() as memory:
        async with measured_stall() as stall:
            answer = await ask(app, "demo/", None)
    assert (answer.status, answer.is_complete) == (200, False)
    assert stall.seconds < MAX_STALL_SECONDS
    assert len(answer.body) <= MAX_UNPACKED_BYTES
    # The test's client keeps what it got.
    assert memory.grown_bytes < len(answer.body) + 2**23


@pytest.mark.usefixtures("web_ui")
async def test_head_of_the_packed_page_has_no_body_to_unpack(app: ProxyApplication) -> None:
    answer = await ask(app, "demo/", None, method="HEAD")
    assert (answer.status, answer.body, answer.is_complete) == (200, b"", True)


@pytest.mark.usefixtures("web_ui")
async def test_clients_key_and_the_backends_stay_away_from_the_web_ui(
    app: ProxyApplication, backend: Backend
) -> None:
    await ask(app, "demo/", ALICE, query=b"api_key=x&a=1", headers=[(b"cookie", b"sessionid=1")])
    request = backend.requests[0]
    assert request.path_qs == "/?a=1"
    assert not {"Authorization", "Cookie"} & set(request.headers)


@pytest.mark.usefixtures("web_ui")
@pytest.mark.parametrize("path", ["demo/secret.json", "demo/v2/props.json"])
async def test_file_that_llama_server_does_not_show_to_everybody_is_not_found(
    app: ProxyApplication, path: str
) -> None:
    answer = await ask(app, path, None)
    assert (answer.status, answer.json()["error"]) == (404, "not_found")


async def test_web_ui_of_an_instance_that_does_not_run_is_503_and_starts_nothing(
    app: ProxyApplication, gateway: TableGateway, backend: Backend
) -> None:
    gateway.lay(stopped(backend))
    for path in ("demo/", "demo/bundle.js"):
        answer = await ask(app, path, None)
        assert (answer.status, answer.json()["error"]) == (503, "instance_not_running")
    assert not gateway.starts


async def test_web_ui_takes_neither_another_method_nor_a_body(
    app: ProxyApplication, backend: Backend
) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = await ask(app, "demo/", None, method=method)
        assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    # A client without a key must not fill the memory.
    assert (await ask(app, "demo/", None, body=b"x")).status == 413
    assert not backend.requests


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("demo", b"", "demo/"),
        ("d%65mo", b"a=1&api_key=secret", "demo/?a=1"),
    ],
)
async def test_path_without_the_slash_leads_to_the_page(
    app: ProxyApplication, path: str, query: bytes, location: str
) -> None:
    answer = await ask(app, path, None, query=query)
    assert (answer.status, answer.header("location")) == (307, location)


@pytest.mark.parametrize("name", ["%2F%2Fevil.example", "..", "a%0d%0ab", "a%20b", "%"])
async def test_name_that_names_no_instance_is_400_and_leads_nowhere_else(
    app: ProxyApplication, backend: Backend, name: str
) -> None:
    for path in (name, f"{name}/", f"{name}/props"):
        answer = await ask(app, path)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_instance_name")
        assert answer.header("location") is None
    assert not backend.requests


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), (CHARLIE, 401), (BOB, 403), (ALICE, 200), (MANAGER, 200)]
)
async def test_endpoint_asks_for_an_inference_key_of_the_instance(
    app: ProxyApplication, backend: Backend, key: str | None, status: int
) -> None:
    answer = await ask(app, "demo/props", key)
    assert answer.status == status
    assert bool(backend.requests) == (status == 200)


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "demo/props?a=1", "GET /props?a=1"),
        ("HEAD", "demo/props", "HEAD /props"),
        ("POST", "demo/props/", "POST /props"),
        ("POST", "demo/completion", "POST /completion"),
        ("POST", "demo/slots/0?action=erase", "POST /slots/0?action=erase"),
        ("GET", "demo/metrics", "GET /metrics"),
        ("POST", "demo/metrics", "GET /metrics"),
        ("POST", "demo/v1/chat/completions", "POST /v1/chat/completions"),
        ("DELETE", "demo/v1/stream?from=1", "DELETE /v1/stream?from=1"),
    ],
)
async def test_endpoint_reaches_the_backend_with_its_own_key(
    app: ProxyApplication, backend: Backend, method: str, path: str, sent: str
) -> None:
    path, _, query = path.partition("?")
    answer = await ask(app, path, method=method, query=query.encode())
    assert answer.status == 200
    request = backend.requests[0]
    assert f"{request.method} {request.raw_path}" == sent
    assert request.headers["Authorization"] == "Bearer of-the-backend"


async def test_body_needs_no_model_and_is_not_touched(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(llama_server(backend, served_model="other"))
    for body in (b'{"messages": []}', b'{"model": "mine"}', b"no json", b""):
        path = "demo/v1/chat/completions"
        assert (await ask(app, path, method="POST", body=body)).status == 200
        assert backend.bodies[-1] == body


async def test_endpoint_starts_a_stopped_instance_unless_it_only_observes(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend))
    for path in ("metrics", "health", "v1/health", "props", "slots", "models", "lora-adapters"):
        answer = await ask(app, f"demo/{path}")
        assert answer.status == 503
        error = answer.json()["error"]
        assert "instance_not_running" in (error if isinstance(error, str) else error["code"])
    assert (await ask(app, "demo/v1/models")).status == 503
    assert not gateway.starts
    exchange = AsgiRequest(app, "/llama-cpp/demo/completion", key=ALICE, json={}).start()
    await gateway.start_was_requested.wait()
    gateway.lay(llama_server(backend, generation=2, observed_generation=2))
    assert (await exchange.finish()).status == 200


@pytest.mark.parametrize(("path", "key"), [("vllm/", None), ("vllm/props", ALICE)])
async def test_instance_of_another_program_is_400_and_says_what_to_use(
    app: ProxyApplication, backend: Backend, path: str, key: str | None
) -> None:
    answer = await ask(app, path, key)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    assert "/v1/" in answer.json()["details"]
    assert not backend.requests


async def test_unknown_instance_is_404_in_the_shape_of_the_path(app: ProxyApplication) -> None:
    assert (await ask(app, "nope/")).json()["error"] == "invalid_instance"
    assert (await ask(app, "nope/props")).json()["error"] == "invalid_instance"
    answer = await ask(app, "nope/v1/chat/completions", method="POST", json={})
    assert (answer.status, answer.json()["error"]["code"]) == (404, "invalid_instance")


async def test_wrong_method_is_405_after_the_key_was_checked(app: ProxyApplication) -> None:
    assert (await ask(app, "demo/completion", None)).status == 401
    answer = await ask(app, "demo/completion")
    assert (answer.status, answer.header("allow")) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("demo", "GET, HEAD, OPTIONS"),
        ("demo/", "GET, HEAD, OPTIONS"),
        ("demo/props", "GET, HEAD, POST, OPTIONS"),
        ("demo/v1/x", "POST, OPTIONS"),
        ("demo/tools", "OPTIONS"),
    ],
)
async def test_options_needs_no_key_and_reaches_no_backend(
    app: ProxyApplication, backend: Backend, path: str, allowed: str
) -> None:
    answer = await ask(app, path, None, method="OPTIONS")
    assert (answer.status, answer.header("allow")) == (204, allowed)
    assert not backend.requests


@pytest.mark.parametrize(
    "rest",
    [
        "tools",
        "cors-proxy",
        "../vllm/props",
        "%2e%2e/vllm/props",
        "..%2fprops",
        "/props",
        "//props",
        "v1/../tools",
        "v1/%2e%2e/tools",
        "v1//models",
        "%70rops",
        "props%2f",
        "props;x",
        "_app/%2e%2e/props",
        "_app/..%2fx.js",
        ".%2e/x.js",
    ],
)
async def test_every_other_path_is_401_without_a_key_and_404_with_one(
    app: ProxyApplication, backend: Backend, rest: str
) -> None:
    for method in ("GET", "POST", "HEAD"):
        assert (await ask(app, f"demo/{rest}", None, method=method)).status == 401
        assert (await ask(app, f"demo/{rest}", ALICE, method=method)).status == 404
    assert not backend.requests
