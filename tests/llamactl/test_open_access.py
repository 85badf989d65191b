from __future__ import annotations

import pytest

from llamactl.open_access import ForeignPage, OpenAccessGuard


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
