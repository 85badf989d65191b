from __future__ import annotations

from typing import Any

import pytest

from llamactl.core.asgi_types import Message, Receive, Scope, Send
from llamactl.middleware.origin_guard import ForeignPage, OriginGuard


def guard(host: str = "127.0.0.1", *origins: str) -> OriginGuard:
    async def unused(*_: object) -> None:
        raise AssertionError

    return OriginGuard(unused, host=host, allowed_origins=["*", *origins])


@pytest.mark.parametrize(
    "headers",
    [
        {b"host": b"127.0.0.1:8080"},
        {b"host": b"localhost:8080", b"origin": b"http://localhost:8080"},
        {b"host": b"[::1]:8080"},
        {},
    ],
)
def test_programs_and_our_own_pages_get_in(headers: dict[bytes, bytes]) -> None:
    guard().check(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {b"host": b"127.0.0.1:8080", b"origin": b"http://evil.example"},
        {b"host": b"127.0.0.1:8080", b"origin": b"null"},
        {b"host": b"127.0.0.1:8080", b"sec-fetch-site": b"cross-site"},
        # A name of theirs that resolves to us.
        {b"host": b"evil.example:8080", b"origin": b"http://evil.example:8080"},
        {b"host": b"evil.example:8080"},
        {b"host": b"[", b"origin": b"http://["},
    ],
)
def test_foreign_pages_do_not(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(ForeignPage, match="asks for no key"):
        guard().check(headers)


def test_origin_that_the_operator_named_gets_in() -> None:
    page = b"https://page.example"
    guard("127.0.0.1", page.decode()).check({b"host": b"127.0.0.1:8080", b"origin": page})


@pytest.mark.parametrize("host", [b"ui.llm.example", b"127.0.0.1:8081"])
def test_a_page_at_the_backends_url_gets_in_on_the_backends_port_alone(host: bytes) -> None:
    async def unused(*_: object) -> None:
        raise AssertionError

    url = "https://ui.llm.example"
    behind_proxy = OriginGuard(unused, host="127.0.0.1", allowed_origins=["*"], ui_origin=url)
    headers = {b"host": host, b"origin": url.encode()}
    behind_proxy.check(headers, is_ui=True)
    with pytest.raises(ForeignPage):
        behind_proxy.check(headers)


@pytest.mark.parametrize("host", [b"evil.example", b"["])
def test_other_names_do_not_on_the_backends_port(host: bytes) -> None:
    with pytest.raises(ForeignPage):
        guard().check({b"host": host}, is_ui=True)


def test_a_public_address_allows_any_host_name() -> None:
    guard("0.0.0.0").check({b"host": b"gpu-box.lan:8080"})
    with pytest.raises(ForeignPage):
        guard("0.0.0.0").check({b"host": b"gpu-box.lan", b"origin": b"http://evil.example"})


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_handshakes_are_guarded_as_requests_are(kind: str) -> None:
    passed: list[str] = []
    sent: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    async def send(message: Message) -> None:
        sent.append(message)

    layer = OriginGuard(application, host="127.0.0.1", allowed_origins=["*"])
    host = (b"host", b"127.0.0.1:8080")
    foreign = [host, (b"origin", b"http://evil.example")]
    scope = {"type": kind, "path": "/", "extensions": {"websocket.http.response": {}}}
    await layer({**scope, "headers": foreign}, unused, send)
    assert sent[0]["status"] == 403
    assert not passed
    await layer({**scope, "headers": [host]}, unused, unused)
    assert passed == [kind]


async def unused(*_: object) -> Any:
    raise AssertionError


def test_the_public_name_of_a_reverse_proxy_gets_in() -> None:
    async def unused(*_: object) -> None:
        raise AssertionError

    public = "https://llm.example:8443"
    guard = OriginGuard(unused, host="127.0.0.1", allowed_origins=["*"], public_origin=public)
    guard.check({b"host": b"127.0.0.1:8080", b"origin": public.encode()})
    guard.check({b"host": b"llm.example:8443"})
    with pytest.raises(ForeignPage):
        guard.check({b"host": b"127.0.0.1:8080", b"origin": b"https://evil.example"})
