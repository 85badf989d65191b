from __future__ import annotations

import pytest

from llamactl.asgi import build
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.middleware.management_headers import ManagementHeaders
from tests.support.asgi import AsgiRequest


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/instances", b"", 401),
        ("GET", "/api/v1/nowhere", b"", 401),
        ("OPTIONS", "/api/v1/instances", b"", 204),
        ("POST", "/api/v1/instances/x", b"x" * 5_000_000, 413),
        ("GET", "/api/schema", b"", 200),
    ],
)
async def test_answers_of_the_management_api_are_not_stored(
    method: str, path: str, body: bytes, status: int
) -> None:
    answer = await AsgiRequest(build(), path, method=method, body=body).finish()
    assert answer.status == status
    headers = [(name.lower(), value) for name, value in answer.headers]
    assert headers.count((b"cache-control", b"no-store")) == 1
    assert headers.count((b"x-content-type-options", b"nosniff")) == 1


async def test_headers_of_the_answer_itself_stay_and_other_paths_have_none() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Cache-Control", b"private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    layer = ManagementHeaders(application)
    for path in ("/api/v1/x", "/v1/models"):
        answer = await AsgiRequest(layer, path, method="GET").finish()
        assert answer.headers[0] == (b"Cache-Control", b"private")
        assert len(answer.headers) == (2 if path == "/api/v1/x" else 1)
