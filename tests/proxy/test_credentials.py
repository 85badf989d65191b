from __future__ import annotations

import pytest

from keys.secrets import digest
from proxy.credentials import rule_for, token_from, without_key
from proxy.errors import InvalidKey, MissingKey
from proxy.table import KeyRule, RoutingTable

KEY = "llamactl-" + "a" * 64
EXPIRING = "llamactl-" + "b" * 64
TABLE = RoutingTable(
    keys={
        digest(KEY): KeyRule(1, digest(KEY), None),
        digest(EXPIRING): KeyRule(2, digest(EXPIRING), None, expires_at=1000.0),
    }
)


@pytest.mark.parametrize(
    ("headers", "query", "token"),
    [
        ([(b"authorization", b"Bearer one")], b"", "one"),
        ([(b"x-api-key", b"two")], b"", "two"),
        ([], b"a=1&api_key=three&b=2", "three"),
        ([(b"x-api-key", b"two"), (b"authorization", b"Bearer one")], b"api_key=three", "one"),
        ([(b"x-api-key", b"two")], b"api_key=three", "two"),
        ([(b"authorization", b"Basic xyz"), (b"x-api-key", b"two")], b"", "two"),
        ([(b"authorization", b"bearer one")], b"", None),
        # As in the seed, an empty Bearer token settles it.
        ([(b"authorization", b"Bearer "), (b"x-api-key", b"two")], b"", ""),
        ([], b"", None),
    ],
)
def test_key_is_taken_from_bearer_then_header_then_query(
    headers: list, query: bytes, token: str | None
) -> None:
    assert token_from(headers, query) == token


def test_known_key_has_its_rule() -> None:
    assert rule_for([(b"x-api-key", KEY.encode())], b"", TABLE, 0.0).id == 1


def test_missing_key_is_told_from_a_wrong_one() -> None:
    with pytest.raises(MissingKey):
        rule_for([], b"", TABLE, 0.0)
    with pytest.raises(InvalidKey):
        rule_for([(b"x-api-key", b"wrong")], b"", TABLE, 0.0)


def test_key_stops_working_at_the_moment_it_expires() -> None:
    headers = [(b"x-api-key", EXPIRING.encode())]
    assert rule_for(headers, b"", TABLE, 999.9).id == 2
    with pytest.raises(InvalidKey):
        rule_for(headers, b"", TABLE, 1000.0)


@pytest.mark.parametrize("token", ["caf\xe9", "\x00", "x" * 100_000, "'; drop table keys"])
def test_hostile_keys_are_merely_wrong(token: str) -> None:
    with pytest.raises(InvalidKey):
        rule_for([(b"x-api-key", token.encode("latin-1"))], b"", TABLE, 0.0)


def test_key_in_the_query_is_not_passed_on() -> None:
    assert without_key(b"a=1&api_key=secret&b=x%20y") == b"a=1&b=x+y"
    assert without_key(b"a=%2F&b") == b"a=%2F&b"
