"""Rules of issuing and revoking keys."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from instances import lifecycle
from keys.errors import (
    InvalidExpiry,
    InvalidInstanceId,
    InvalidKeyName,
    InvalidKeyRequest,
    InvalidPermissionMode,
    MissingPermissions,
)
from keys.issuing import issue, revoke
from keys.models import InferenceKey
from keys.secrets import digest
from llamactl.models import Revision, Topic

pytestmark = pytest.mark.django_db


def revision() -> int:
    return Revision.numbers().get(Topic.KEYS, 0)


def test_new_key_is_found_by_its_digest_and_stored_nowhere() -> None:
    before = revision()
    key, plain = issue(name="app", permission_mode="allow_all")
    assert InferenceKey.objects.get(digest=digest(plain)) == key
    assert plain.endswith(key.hint)
    columns = InferenceKey.objects.filter(pk=key.pk).values().get()
    assert plain not in repr(columns)
    assert revision() == before + 1


def test_limited_key_opens_only_the_named_instances() -> None:
    mine = lifecycle.create("mine", {}, cause="test")
    lifecycle.create("other", {}, cause="test")
    key, _ = issue(name="app", permission_mode="per_instance", instance_ids=[mine.pk, mine.pk])
    assert [instance.name for instance in key.instances.all()] == ["mine"]


def test_unlimited_key_has_no_list_of_instances() -> None:
    mine = lifecycle.create("mine", {}, cause="test")
    key, _ = issue(name="app", permission_mode="allow_all", instance_ids=[mine.pk])
    assert not key.instances.exists()


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"name": ""}, InvalidKeyName),
        ({"name": "  "}, InvalidKeyName),
        ({"name": "x" * 101}, InvalidKeyName),
        ({"permission_mode": "all"}, InvalidPermissionMode),
        ({"permission_mode": "per_instance"}, MissingPermissions),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, InvalidExpiry),
        ({"permission_mode": "per_instance", "instance_ids": [999]}, InvalidInstanceId),
    ],
)
def test_broken_rule_creates_no_key(
    wanted: dict[str, object], error: type[InvalidKeyRequest]
) -> None:
    before = revision()
    with pytest.raises(error):
        issue(**{"name": "app", "permission_mode": "allow_all", **wanted})  # type: ignore[arg-type]
    assert not InferenceKey.objects.exists()
    assert revision() == before


def test_revoked_key_is_deleted() -> None:
    key, plain = issue(name="app", permission_mode="allow_all")
    before = revision()
    assert revoke([key]) == 1
    assert not InferenceKey.objects.filter(digest=digest(plain)).exists()
    assert revision() == before + 1
