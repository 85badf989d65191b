from __future__ import annotations

from typing import Any

import pytest

from llamactl.asgi import build, with_forwarded_headers
from llamactl.middleware.secure_cookies import SecureCookies
from tests.support.asgi import AsgiRequest

COOKIES = [(b"set-cookie", b"a=1; Path=/"), (b"Set-Cookie", b"b=2; secure"), (b"x", b"set-cookie")]


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": COOKIES})
    await send({"type": "http.response.body", "body": b""})


async def test_cookies_of_a_request_by_https_are_secure() -> None:
    request = AsgiRequest(SecureCookies(inner), "/admin/")
    request.scope["scheme"] = "https"
    assert (await request.finish()).headers == [
        (b"set-cookie", b"a=1; Path=/; Secure"),
        (b"Set-Cookie", b"b=2; secure"),
        (b"x", b"set-cookie"),
    ]


async def test_cookies_of_a_request_by_http_are_as_they_were() -> None:
    assert (await AsgiRequest(SecureCookies(inner), "/admin/").finish()).headers == COOKIES


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("peer", "proto", "is_secure"),
    [
        ("127.0.0.1", b"https", True),
        ("127.0.0.1", b"http", False),
        ("192.0.2.1", b"https", False),  # a header of anybody
    ],
)
async def test_the_scheme_is_that_of_a_reverse_proxy_on_this_machine(
    peer: str, proto: bytes, is_secure: bool
) -> None:
    headers = [(b"x-forwarded-proto", proto), (b"host", b"llm.example")]
    request = AsgiRequest(build(), "/admin/login/", method="GET", headers=headers)
    request.scope |= {"client": (peer, 40_000), "scheme": "http"}
    answer = await request.finish()
    cookies = [value for name, value in answer.headers if name.lower() == b"set-cookie"]
    assert answer.status == 200
    assert cookies
    assert {b"; Secure" in cookie for cookie in cookies} == {is_secure}


@pytest.mark.parametrize(
    ("peer", "client"), [("127.0.0.1", "198.51.100.7"), ("192.0.2.1", "192.0.2.1")]
)
async def test_the_address_is_that_of_a_reverse_proxy_on_this_machine(
    peer: str, client: str
) -> None:
    seen: list[str] = []

    async def address(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    # The first address is what the client itself claims.
    headers = [(b"x-forwarded-for", b"203.0.113.1, 198.51.100.7")]
    request = AsgiRequest(with_forwarded_headers(address), "/admin/login/", headers=headers)
    request.scope["client"] = (peer, 40_000)
    await request.finish()
    assert seen == [client]
