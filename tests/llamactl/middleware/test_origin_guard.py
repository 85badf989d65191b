from __future__ import annotations

from typing import Any

import pytest

from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.core.errors import LlamactlError
from llamactl.middleware.origin_guard import ForeignPage, OpenAccessGuard


def guard(host: str = "127.0.0.1", *origins: str) -> OpenAccessGuard:
    async def unused(*_: object) -> None:
        raise AssertionError

    return OpenAccessGuard(unused, unused, host=host, allowed_origins=["*", *origins])


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


def test_bound_to_everywhere_any_name_of_ours_will_do() -> None:
    guard("0.0.0.0").check({b"host": b"gpu-box.lan:8080"})
    with pytest.raises(ForeignPage):
        guard("0.0.0.0").check({b"host": b"gpu-box.lan", b"origin": b"http://evil.example"})


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_handshakes_are_looked_at_as_requests_are(kind: str) -> None:
    passed: list[str] = []
    refused: list[LlamactlError] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    async def refuse(scope: Scope, send: Send, error: LlamactlError) -> None:
        refused.append(error)

    layer = OpenAccessGuard(application, refuse, host="127.0.0.1", allowed_origins=["*"])
    host = (b"host", b"127.0.0.1:8080")
    foreign = [host, (b"origin", b"http://evil.example")]
    await layer({"type": kind, "headers": foreign}, unused, unused)
    assert [error.status for error in refused] == [403]
    assert not passed
    await layer({"type": kind, "headers": [host]}, unused, unused)
    assert passed == [kind]


async def unused(*_: object) -> Any:
    raise AssertionError
