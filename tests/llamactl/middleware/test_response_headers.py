from __future__ import annotations

from typing import Any

import pytest

from llamactl.asgi import build
from llamactl.core.asgi_types import Application, Receive, Scope, Send
from llamactl.middleware.response_headers import ResponseHeaders, keep
from tests.support.asgi import AsgiRequest, AsgiResponse

WANTED = {"X-Robots-Tag": "noindex", "Cache-Control": "no-store"}


def answering(*headers: tuple[bytes, bytes], kept: tuple[bytes, ...] = ()) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if kept:
            keep(scope, [(name, b"") for name in kept])
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"ok"})

    return application


async def ask(application: Application, path: str = "/", **more: Any) -> AsgiResponse:
    return await AsgiRequest(application, path, method="GET", **more).finish()


async def test_configured_headers_are_added_and_replace_headers_of_the_same_name() -> None:
    application = answering((b"Cache-Control", b"max-age=1"), (b"x-a", b"1"))
    answer = await ask(ResponseHeaders(application, WANTED))
    assert answer.headers == [
        (b"x-a", b"1"),
        (b"x-robots-tag", b"noindex"),
        (b"cache-control", b"no-store"),
    ]
    assert answer.body == b"ok"


async def test_headers_configured_for_the_backend_win() -> None:
    application = answering((b"cache-control", b"max-age=1"), kept=(b"cache-control",))
    answer = await ask(ResponseHeaders(application, WANTED))
    assert answer.headers == [(b"cache-control", b"max-age=1"), (b"x-robots-tag", b"noindex")]


async def test_without_any_there_is_no_layer() -> None:
    assert not isinstance(build(), ResponseHeaders)


@pytest.mark.parametrize("path", ["/api/v1/nowhere", "/admin/login/", "/healthz"])
@pytest.mark.django_db(transaction=True)
async def test_djangos_pages_and_refusals_carry_them(override: Any, path: str) -> None:
    override(server={"response_headers": {"X-Frame-Options": "SAMEORIGIN", "X-A": "é"}})
    answer = await ask(build(), path)
    assert answer.status in (200, 401)
    assert [value for name, value in answer.headers if name.lower() == b"x-frame-options"] == [
        b"SAMEORIGIN"
    ]
    assert (b"x-a", "é".encode("latin-1")) in answer.headers


async def test_preflight_carries_them(override: Any) -> None:
    override(server={"response_headers": {"X-A": "1"}})
    headers = [(b"origin", b"http://a.example"), (b"access-control-request-method", b"POST")]
    exchange = AsgiRequest(build(), "/llama-cpp/x/completion", method="OPTIONS", headers=headers)
    answer = await exchange.finish()
    assert (answer.status, answer.header("x-a")) == (204, "1")
    assert answer.header("access-control-allow-origin") == "*"
