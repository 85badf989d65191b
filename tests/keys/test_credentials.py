"""Extraction of a key from headers and query."""

from __future__ import annotations

import pytest

from keys.credentials import key_in

BEARER = b"authorization"
API_KEY = b"x-api-key"


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ([(BEARER, b"Bearer one")], b"", "one"),
        ([(API_KEY, b"two")], b"", "two"),
        ([], b"a=1&api_key=three&b=2", "three"),
        ([], b"", ""),
        ([(API_KEY, b"two"), (BEARER, b"Bearer one")], b"api_key=three", "one"),
        ([(API_KEY, b"two")], b"api_key=three", "two"),
        ([(API_KEY, b"")], b"api_key=three", "three"),
        ([(API_KEY, b"two"), (API_KEY, b"later")], b"", "two"),
        ([], b"api_key=three&api_key=later", "three"),
        ([(BEARER, b"Basic xyz"), (API_KEY, b"two")], b"", "two"),
        ([(BEARER, b"Bearer"), (API_KEY, b"two")], b"", "two"),
        # As in the seed, an empty Bearer token settles it.
        ([(BEARER, b"Bearer "), (API_KEY, b"two")], b"api_key=three", ""),
        # The name of a scheme has no case (RFC 9110), and a blank is part of no key.
        ([(BEARER, b"bearer one")], b"", "one"),
        ([(BEARER, b"BEARER  one ")], b"", "one"),
        ([(BEARER, b"bEaReR\tone")], b"", "one"),
        ([(BEARER, b"one")], b"", ""),
        ([(BEARER, b"Token one")], b"", ""),
        ([(BEARER, b"Bearerone"), (API_KEY, b"two")], b"", "two"),
    ],
)
def test_key_is_taken_from_bearer_then_header_then_query(
    headers: list[tuple[bytes, bytes]], query: bytes, key: str
) -> None:
    assert key_in(headers, query) == key


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\x00", b"x" * 100_000, "schlüssel".encode()])
def test_hostile_headers_yield_their_bytes(value: bytes) -> None:
    assert key_in([(API_KEY, value)], b"").encode("utf-8", "surrogateescape") == value


@pytest.mark.parametrize("query", [b"api_key", b"api_key=&&", b"=api_key", b"api_key=%", b"\xff"])
def test_hostile_queries_yield_at_most_their_text(query: bytes) -> None:
    assert key_in([], query) in ("", "%")
