from __future__ import annotations

from typing import Any

import pytest

from llamactl.middleware.cors import CrossOrigin
from tests.support.asgi import AsgiRequest

PAGE = (b"origin", b"https://page.example")
PREFLIGHT = [
    PAGE,
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization"),
]


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"answer"})


def layer(*origins: str, headers: tuple[str, ...] = ("*",)) -> CrossOrigin:
    return CrossOrigin(inner, allowed_origins=list(origins), allowed_headers=list(headers))


async def test_a_request_without_an_origin_passes_unchanged() -> None:
    answer = await AsgiRequest(layer("*"), "/v1/models").finish()
    assert answer.headers == [(b"x-own", b"1")]


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        (["*"], "*"),
        (["https://page.example"], "https://page.example"),
        (["https://other.example"], None),
        ([], None),
    ],
)
async def test_origin_may_read_the_answer_where_the_config_says_so(
    origins: list[str], allowed: str | None
) -> None:
    answer = await AsgiRequest(layer(*origins), "/v1/models", headers=[PAGE]).finish()
    assert answer.body == b"answer"
    assert answer.header("access-control-allow-origin") == allowed


async def test_preflight_is_answered_here_and_never_allows_credentials() -> None:
    answer = await AsgiRequest(layer("*"), "/v1/x", method="OPTIONS", headers=PREFLIGHT).finish()
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header("access-control-allow-headers") == "authorization"
    assert "POST" in (answer.header("access-control-allow-methods") or "")
    assert answer.header("access-control-allow-credentials") is None


async def test_preflight_of_a_foreign_page_allows_nothing() -> None:
    foreign = layer("https://other.example", headers=("authorization",))
    answer = await AsgiRequest(foreign, "/v1/x", method="OPTIONS", headers=PREFLIGHT).finish()
    # A cache must not keep the refusal for a page that may.
    assert answer.headers == [(b"vary", b"Origin")]


@pytest.mark.parametrize("origin", [b"https://page.example", b"https://other.example", b"null"])
async def test_an_answer_that_depends_on_the_origin_says_so(origin: bytes) -> None:
    request = AsgiRequest(
        layer("https://page.example"), "/v1/models", headers=[(b"origin", origin)]
    )
    assert (await request.finish()).header("vary") == "Origin"
    program = await AsgiRequest(layer("https://page.example"), "/v1/models").finish()
    assert program.headers == [(b"x-own", b"1"), (b"vary", b"Origin")]
    anyone = AsgiRequest(layer("*"), "/v1/models", headers=[(b"origin", origin)])
    assert (await anyone.finish()).header("vary") is None
