from __future__ import annotations

import pytest

from keys.secrets import digest
from llamactl.core.errors import InvalidKey, MissingKey
from proxy.auth import rule_for, without_key
from proxy.table.table import KeyRule, RoutingTable

KEY = "llamactl-" + "a" * 64
EXPIRING = "llamactl-" + "b" * 64
TABLE = RoutingTable(
    keys={
        digest(KEY): KeyRule(1, digest(KEY), None),
        digest(EXPIRING): KeyRule(2, digest(EXPIRING), None, expires_at=1000.0),
    }
)


def test_known_key_has_its_rule() -> None:
    for headers in (
        [(b"authorization", b"Bearer " + KEY.encode())],
        [(b"authorization", b"bearer " + KEY.encode())],
        [(b"x-api-key", KEY.encode())],
    ):
        assert rule_for(headers, b"", TABLE, 0.0).id == 1
    assert rule_for([], b"api_key=" + KEY.encode(), TABLE, 0.0).id == 1


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
