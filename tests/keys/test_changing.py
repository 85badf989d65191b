"""Changes and rotations of inference keys over the API."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from keys.imported import recognise, unrecognised_hashes
from keys.issuing import issue
from keys.models import ImportedHash, InferenceKey
from keys.rights import Rights, rights_of
from keys.secrets import digest
from llamactl.models import Revision, Topic

pytestmark = pytest.mark.django_db
KEYS = "/api/v1/auth/keys"


def patch(api: Client, key: InferenceKey, body: Any) -> Any:
    return api.patch(f"{KEYS}/{key.pk}", body, content_type="application/json")


def rotate(api: Client, key: InferenceKey, body: Any = None) -> Any:
    body = {} if body is None else body
    return api.post(f"{KEYS}/{key.pk}/rotate", body, content_type="application/json")


def test_each_field_changes_alone_and_is_announced(api: Client) -> None:
    pk = lifecycle.create("one", {}, cause="test").pk
    key, plain = issue(name="app", permission_mode="per_instance", instance_ids=[pk])
    before = api.get(f"{KEYS}/{key.pk}").json()
    in_an_hour = int(time.time()) + 3600
    for change in (
        {"name": "renamed"},
        {"expires_at": in_an_hour},
        {"expires_at": None},
        {"blocked": True},
        {"blocked": False},
        {
            "permissions": [
                {"instance_id": pk, "can_start": False, "can_evict": False, "can_stop": True}
            ]
        },
        {},
    ):
        revision = Revision.numbers()[Topic.KEYS]
        response = patch(api, key, change)
        assert response.status_code == 200, response.content
        expected = {**before, **change}
        before = response.json()
        assert {**expected, "updated_at": 0} == {**before, "updated_at": 0}
        assert Revision.numbers()[Topic.KEYS] > revision
    key.refresh_from_db()
    assert bytes(key.digest) == digest(plain)


def test_mode_changes_with_its_instances(api: Client) -> None:
    one, two = (lifecycle.create(name, {}, cause="test").pk for name in ("one", "two"))
    key, _ = issue(name="app", permission_mode="allow_all")
    assert patch(api, key, {"instance_ids": [one]}).json()["error"] == "invalid_permissions"
    mode = {"permission_mode": "per_instance"}
    assert patch(api, key, mode).json()["error"] == "missing_permissions"
    assert patch(api, key, {**mode, "instance_ids": [one]}).status_code == 200
    assert rights_of(key) == {one: Rights(can_start=True, can_evict=True)}
    assert patch(api, key, {"permissions": [{"instance_id": two}]}).status_code == 200
    assert rights_of(key) == {two: Rights()}
    assert patch(api, key, {"permissions": []}).json()["error"] == "missing_permissions"
    assert patch(api, key, {"permission_mode": "allow_all"}).status_code == 200
    assert rights_of(key) == {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": ""}, "invalid_name"),
        ({"name": None}, "invalid_name"),
        ({"permission_mode": "some"}, "invalid_permission_mode"),
        ({"permission_mode": ["allow_all"]}, "invalid_permission_mode"),
        ({"expires_at": 1}, "invalid_expires_at"),
        ({"expires_at": "never"}, "invalid_expires_at"),
        ({"blocked": 1}, "invalid_blocked"),
        ({"blocked": None}, "invalid_blocked"),
        ({"is_blocked": True}, "invalid_request"),
        ({"permissions": [{"instance_id": 999}]}, "invalid_permissions"),
        ({"instance_ids": ["x"]}, "invalid_instance_id"),
        ("[]", "invalid_json"),
        ("null", "invalid_json"),
    ],
)
def test_wrong_field_is_named_and_changes_nothing(api: Client, change: Any, error: str) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    before = api.get(f"{KEYS}/{key.pk}").json()
    body = change if isinstance(change, str) else {"name": "new", **change}
    response = patch(api, key, body)
    assert (response.status_code, response.json()["error"]) == (400, error)
    assert api.get(f"{KEYS}/{key.pk}").json() == before


def test_key_without_an_instance_left_may_be_blocked(api: Client) -> None:
    pk = lifecycle.create("one", {}, cause="test").pk
    key, _ = issue(name="app", permission_mode="per_instance", instance_ids=[pk])
    lifecycle.delete("one", cause="test")
    assert patch(api, key, {"blocked": True}).json()["blocked"] is True


def test_expired_key_may_be_renamed_and_keeps_its_expiry(api: Client) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    InferenceKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    shown = api.get(f"{KEYS}/{key.pk}").json()
    response = patch(api, key, {"name": "old", "expires_at": shown["expires_at"]})
    assert (response.status_code, response.json()["name"]) == (200, "old")
    assert response.json()["expires_at"] == shown["expires_at"]


def test_rotation_shows_the_new_key_once_and_keeps_the_row(api: Client) -> None:
    key, plain = issue(name="app", permission_mode="allow_all")
    response = rotate(api, key, {"old_key_hours": 1.5})
    assert response.status_code == 200, response.content
    assert response["Cache-Control"] == "no-store"
    body = response.json()
    key.refresh_from_db()
    assert bytes(key.digest) == digest(body.pop("key"))
    assert key.old_digest is not None
    assert bytes(key.old_digest) == digest(plain)
    assert api.get(f"{KEYS}/{key.pk}").json() == body
    assert abs(body["old_key_expires_at"] - time.time() - 5400) < 60
    assert rotate(api, key).json()["old_key_expires_at"] is None


@pytest.mark.parametrize("hours", [-1, 8761, True, "1", None, [1]])
def test_wrong_hours_rotate_nothing(api: Client, hours: Any) -> None:
    key, plain = issue(name="app", permission_mode="allow_all")
    response = rotate(api, key, {"old_key_hours": hours})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_old_key_hours")
    assert rotate(api, key, {"hours": 1}).json()["error"] == "invalid_request"
    assert rotate(api, key, "").json()["error"] == "invalid_json"
    key.refresh_from_db()
    assert bytes(key.digest) == digest(plain)


def test_unknown_key_is_not_found(api: Client) -> None:
    for path in (f"{KEYS}/999", f"{KEYS}/x"):
        status = 404 if path.endswith("999") else 400
        assert api.patch(path, {}, content_type="application/json").status_code == status
        assert api.post(f"{path}/rotate", {}, content_type="application/json").status_code == status


def test_inference_key_changes_no_key() -> None:
    key, plain = issue(name="app", permission_mode="allow_all")
    client = Client(headers={"x-api-key": plain})
    assert patch(client, key, {"name": "mine"}).status_code == 401
    assert rotate(client, key).status_code == 401


def test_imported_key_that_was_rotated_before_its_first_use_is_its_old_secret(api: Client) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    ImportedHash.objects.create(argon2="hash", key=key)
    new = rotate(api, key, {"old_key_hours": 1}).json()["key"]
    recognise("hash", "the old key")
    key.refresh_from_db()
    assert key.old_digest is not None
    assert (bytes(key.digest), bytes(key.old_digest)) == (digest(new), digest("the old key"))


def test_imported_key_that_was_rotated_for_good_is_recognised_no_more(api: Client) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    ImportedHash.objects.create(argon2="hash", key=key)
    rotate(api, key)
    assert unrecognised_hashes() == ()
