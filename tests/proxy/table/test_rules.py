"""Rules of keys, as the routing table reads them from the database."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from instances import lifecycle
from keys import changing
from keys.changing import KeyChange
from keys.issuing import issue
from keys.rights import Rights
from keys.secrets import digest
from proxy.table.refresh import read_rules, read_targets
from proxy.table.table import KeyRule, RoutingTable, Target
from tests.support.environment import MANAGEMENT_KEY

pytestmark = pytest.mark.django_db


def rights_in(rule: KeyRule, target: Target) -> tuple[bool, bool, bool, bool]:
    return (
        rule.allows(target),
        rule.may_start(target),
        rule.may_evict_for(target),
        rule.may_stop(target),
    )


def test_rule_has_the_rights_of_its_key() -> None:
    one, two = (lifecycle.create(name, {}, cause="test").pk for name in ("one", "two"))
    lifecycle.create("three", {}, cause="test")
    rights = {one: Rights(can_start=True), two: Rights(can_evict=True, can_stop=True)}
    _, narrow = issue(name="a", permission_mode="per_instance", rights=rights)
    _, usual = issue(name="b", permission_mode="per_instance", instance_ids=[one])
    _, wide = issue(name="c", permission_mode="allow_all")
    rules, targets = read_rules(), read_targets()
    rule = rules[digest(narrow)]
    assert rights_in(rule, targets["one"]) == (True, True, False, False)
    assert rights_in(rule, targets["two"]) == (True, False, True, True)
    assert rights_in(rule, targets["three"]) == (False, False, False, False)
    assert rights_in(rules[digest(usual)], targets["one"]) == (True, True, True, False)
    assert rights_in(rules[digest(wide)], targets["three"]) == (True, True, True, False)
    assert rights_in(rules[digest(MANAGEMENT_KEY)], targets["three"]) == (True, True, True, True)


def test_blocked_key_has_no_rule() -> None:
    key, plain = issue(name="a", permission_mode="allow_all")
    changing.rotate(key.pk, old_valid=timedelta(hours=1))
    changing.change(key.pk, KeyChange(is_blocked=True))
    assert [rule for rule in read_rules().values() if rule.id == key.pk] == []
    changing.change(key.pk, KeyChange(is_blocked=False))
    assert read_rules()[digest(plain)].id == key.pk


def test_rotated_key_opens_by_both_secrets_until_the_old_one_ends() -> None:
    key, old = issue(name="a", permission_mode="allow_all")
    _, new = changing.rotate(key.pk, old_valid=timedelta(hours=2))
    table = RoutingTable(keys=read_rules())
    now = time.time()
    for plain in (old, new):
        rule = table.rule(digest(plain), now)
        assert rule is not None
        assert rule.id == key.pk
    assert table.rule(digest(old), now + 2 * 3600 + 60) is None
    assert table.rule(digest(new), now + 2 * 3600 + 60) is not None
    _, newest = changing.rotate(key.pk, old_valid=timedelta())
    assert {rule.digest for rule in read_rules().values() if rule.id == key.pk} == {digest(newest)}
