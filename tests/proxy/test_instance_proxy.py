"""``/api/v1/instances/{name}/proxy/…``: any method and path, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.asgi import ProxyApplication
from tests.proxy.conftest import ALICE, MANAGER, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest

PATH = "/api/v1/instances/demo/proxy"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]


class Recorder:
    """A server that keeps each request as it came over the wire."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def recorder(gateway: TableGateway) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    gateway.lay(make_target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    yield recorder
    server.close()


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_reaches_the_backend_with_a_management_key_alone(
    app: ProxyApplication, backend: Backend, method: str
) -> None:
    for key in (None, ALICE):
        assert (await AsgiRequest(app, f"{PATH}/x", method=method, key=key).finish()).status == 401
    assert not backend.requests
    answer = await AsgiRequest(app, f"{PATH}/x", method=method, key=MANAGER).finish()
    assert (answer.status, answer.is_complete) == (200, True)
    assert [request.method for request in backend.requests] == [method]
    assert answer.body == (b"" if method == "HEAD" else b'{"ok": true}')


@pytest.mark.parametrize(
    ("path", "query", "sent"),
    [
        ("", b"", "/"),
        ("/", b"", "/"),
        ("/a/b/", b"x=1&x=2&y=%20+%2F", "/a/b/?x=1&x=2&y=%20+%2F"),
        ("/a%2Fb/%C3%A9", b"", "/a%2Fb/%C3%A9"),
        ("//a//b", b"", "//a//b"),
        ("/a", b"api_key=k&b=1", "/a?b=1"),
    ],
)
async def test_path_and_query_go_on_as_the_client_spelt_them(
    app: ProxyApplication, backend: Backend, path: str, query: bytes, sent: str
) -> None:
    await AsgiRequest(app, PATH + path, method="GET", key=MANAGER, query=query).finish()
    assert backend.requests[0].raw_path == sent


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_empty_body_is_announced_as_empty(
    app: ProxyApplication, recorder: Recorder, method: str
) -> None:
    await AsgiRequest(app, f"{PATH}/x", method=method, key=MANAGER).finish()
    assert recorder.heads[0].lower().count(b"\r\ncontent-length: 0\r\n") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_request_without_a_body_announces_none(
    app: ProxyApplication, recorder: Recorder, method: str
) -> None:
    await AsgiRequest(app, f"{PATH}/x", method=method, key=MANAGER).finish()
    assert b"content-length" not in recorder.heads[0].lower()
    assert b"transfer-encoding" not in recorder.heads[0].lower()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
async def test_large_body_goes_on_whole(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, method: str
) -> None:
    gateway.max_body_bytes = 2**24
    body = bytes(range(256)) * 2**15
    answer = await AsgiRequest(app, f"{PATH}/x", method=method, key=MANAGER, body=body).finish()
    assert answer.status == 200
    assert backend.bodies == [body]
