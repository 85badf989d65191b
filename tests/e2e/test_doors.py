"""Rules of HTTP that every path keeps alike, on raw sockets against the whole of llamactl."""

from __future__ import annotations

import json
import socket
import sys
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.support.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BACKEND = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer("application/json", {{}})
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        seen = {{"length": length, "chunked": "Transfer-Encoding" in self.headers}}
        is_stream = b"stream" in body[:100]
        self.answer("text/event-stream" if is_stream else "application/json", seen)
    def answer(self, kind, document):
        body = b"data: " * (kind[:4] == "text") + json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

words = sys.argv
ThreadingHTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()
"""

DOORS = (
    "/v1/models",
    "/v1/chat/completions",
    "/v1/files",
    "/llama-cpp/echo/health",
    "/llama-cpp/echo/",
    "/llama-cpp/echo/nothing",
    "/api/v1/instances/echo/proxy/health",
    "/api/v1/instances",
    "/api/v1/nothing",
    "/api/schema",
    "/api/tags",
    "/admin/",
    "/admin/login/",
    "/admin/nothing",
    "/static/nothing.css",
    "/docs",
    "/healthz",
    "/nothing",
    "/",
)

POSTS = (
    "/v1/chat/completions",
    "/llama-cpp/echo/v1/chat/completions",
    "/llama-cpp/echo/completion",
    "/api/v1/instances/echo/proxy/v1/chat/completions",
    "/api/v1/instances/echo/proxy/completion",
)


@pytest.fixture(scope="module")
def key(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    program: Path = tmp_path_factory.mktemp("doors") / "echo"
    program.write_text(BACKEND.format(python=sys.executable))
    program.chmod(0o755)
    stack.create("echo", {"model": "m"}, command_override=str(program))
    assert stack.call("POST", "/api/v1/instances/echo/start?wait=60").status_code == 200
    return stack.management_key


def exchange(stack: Stack, head: str, body: bytes = b"") -> tuple[HTTPResponse, bytes]:
    """The response to a request with this head, which is sent to the byte."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body)
        response = HTTPResponse(connection, method=head.split(" ", 1)[0])
        response.begin()
        return response, response.read()


def assert_json_error(response: HTTPResponse, body: bytes, status: int) -> None:
    assert response.status == status, body
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(body)["error"]


MALFORMED = {
    "no Host": "",
    "an empty Host": "Host:\n",
    "two Hosts": "Host: a\nHost: a\n",
    "a blank in Host": "Host: a b\n",
    "a URL as Host": "Host: http://a/\n",
    "a user in Host": "Host: a@b\n",
    "a list of Hosts": "Host: a, b\n",
    "a path in Host": "Host: a/b\n",
    "a quote in Host": 'Host: a"b\n',
    "half an address": "Host: [::1\n",
    "a letter in the port": "Host: a:8x\n",
    "two Authorizations": "Host: a\nAuthorization: Bearer a\nauthorization: Bearer a\n",
    "two keys": "Host: a\nX-API-Key: a\nX-Api-Key: a\n",
    "two Content-Types": "Host: a\nContent-Type: a/b\nContent-Type: a/b\n",
}


@pytest.mark.parametrize("headers", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_head_is_400_in_json_at_every_door(
    stack: Stack, key: str, headers: str
) -> None:
    for path in DOORS:
        assert_json_error(*exchange(stack, f"GET {path} HTTP/1.1\n{headers}"), 400)


@pytest.mark.parametrize("host", ["a", "A.b-c:8080", "127.0.0.1", "[::1]:80", "a.:1", "a_b:80"])
def test_a_usual_host_is_taken_at_every_door(stack: Stack, key: str, host: str) -> None:
    for path in DOORS:
        head = f"GET {path} HTTP/1.1\nHost: {host}\nAuthorization: Bearer {key}\n"
        assert exchange(stack, head)[0].status != 400, path


@pytest.mark.parametrize("path", DOORS)
def test_options_needs_no_key_and_names_the_methods(stack: Stack, key: str, path: str) -> None:
    response, body = exchange(stack, f"OPTIONS {path} HTTP/1.1\nHost: a\n")
    if response.status == 204:
        assert "OPTIONS" in response.headers["Allow"]
        assert not body
    else:
        # A path of nothing, a form of the admin, or a path of the backend, which needs a key.
        assert response.status in (200, 302, 401, 404)
        assert "nothing" in path or "proxy" in path or path.startswith(("/admin", "/api/tags"))


@pytest.mark.parametrize("path", POSTS)
def test_a_stream_is_not_buffered_by_a_reverse_proxy(stack: Stack, key: str, path: str) -> None:
    body = b'{"model":"echo","stream":true}'
    head = (
        f"POST {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {key}\nContent-Length: {len(body)}"
    )
    response, _ = exchange(stack, head + "\n", body)
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("size", [100, 3 * 2**20])
@pytest.mark.parametrize("path", POSTS)
def test_a_body_in_chunks_reaches_the_backend_with_its_length(
    stack: Stack, key: str, path: str, size: int
) -> None:
    body = b'{"model":"echo","messages":"' + b"a" * size + b'"}'
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {key}\n"
    response, answer = exchange(stack, head + "Transfer-Encoding: chunked\n", chunks)
    assert response.status == 200, answer
    assert json.loads(answer) == {"length": len(body), "chunked": False}


# The backend itself answers writes through the instance proxy.
@pytest.mark.parametrize("path", [path for path in DOORS if "/proxy/" not in path])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_write_that_fails_is_json_for_a_program(
    stack: Stack, key: str, path: str, method: str
) -> None:
    head = f"{method} {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {key}\nAccept: */*\n"
    response, body = exchange(stack, head)
    assert response.status in (403, 404, 405)
    assert_json_error(response, body, response.status)
    if response.status == 405:
        assert response.headers["Allow"]


@pytest.mark.parametrize(
    "path", [path for path in DOORS if path.startswith(("/v1", "/api/", "/l"))]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_cache_keeps_an_answer_that_a_key_opens(
    stack: Stack, key: str, path: str, method: str
) -> None:
    for credentials in ("", f"Authorization: Bearer {key}\n"):
        response, _ = exchange(stack, f"{method} {path} HTTP/1.1\nHost: a\n{credentials}")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        if response.status != 200 or ("proxy" not in path and "llama-cpp" not in path):
            assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["metrics", "props", "slots", "models", "v1/models", "health"])
def test_a_read_starts_nothing(stack: Stack, key: str, path: str) -> None:
    if stack.call("GET", "/api/v1/instances/idle").status_code == 404:
        stack.create("idle", {"model": "m"})
    head = f"GET /llama-cpp/idle/{path} HTTP/1.1\nHost: a\nAuthorization: Bearer {key}\n"
    assert_json_error(*exchange(stack, head), 503)
    instance = stack.instance("idle")
    assert (instance["status"], instance["last_used_at"]) == ("stopped", None)
