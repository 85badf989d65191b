"""Operations on inference keys over the API."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from keys.issuing import issue
from keys.models import InferenceKey
from keys.secrets import digest

pytestmark = pytest.mark.django_db
KEYS = "/api/v1/auth/keys"


def post(api: Client, body: Any) -> Any:
    return api.post(KEYS, body, content_type="application/json")


def test_created_key_is_shown_once(api: Client) -> None:
    expires_at = int(time.time()) + 3600
    response = post(api, {"name": "app", "permission_mode": "allow_all", "expires_at": expires_at})
    assert response.status_code == 201, response.content
    body = response.json()
    plain = body.pop("key")
    key = InferenceKey.objects.get(digest=digest(plain))
    assert body == {
        "id": key.pk,
        "name": "app",
        "user_id": "system",
        "permission_mode": "allow_all",
        "permissions": [],
        "blocked": False,
        "expires_at": expires_at,
        "old_key_expires_at": None,
        "created_at": int(key.created_at.timestamp()),
        "updated_at": int(key.updated_at.timestamp()),
        "last_used_at": None,
    }
    assert response["Cache-Control"] == "no-store"
    assert api.get(f"{KEYS}/{key.pk}").json() == body
    assert plain not in api.get(KEYS).content.decode()


def test_keys_are_listed_newest_first(api: Client) -> None:
    for name in ("a", "b", "c"):
        issue(name=name, permission_mode="allow_all")
    InferenceKey.objects.filter(name="a").update(created_at=timezone.now() + timedelta(hours=1))
    assert [key["name"] for key in api.get(KEYS).json()] == ["a", "c", "b"]


def test_list_without_keys_is_empty(api: Client) -> None:
    assert api.get(KEYS).json() == []


def test_permissions_name_the_instances(api: Client) -> None:
    ids = [lifecycle.create(name, {}, cause="test").pk for name in ("two", "one")]
    response = post(api, {"name": "app", "permission_mode": "per_instance", "instance_ids": ids})
    permissions = api.get(f"{KEYS}/{response.json()['id']}/permissions")
    # It should let the key start and evict, as every key could before there were rights.
    rights = {"can_start": True, "can_evict": True, "can_stop": False}
    assert permissions.json() == [
        {"instance_id": ids[1], "instance_name": "one", **rights},
        {"instance_id": ids[0], "instance_name": "two", **rights},
    ]


def test_rights_are_given_one_by_one_and_default_to_no(api: Client) -> None:
    ids = [lifecycle.create(name, {}, cause="test").pk for name in ("one", "two")]
    asked = [{"instance_id": ids[1], "can_start": True, "can_stop": True}, {"instance_id": ids[0]}]
    response = post(api, {**PER_INSTANCE, "permissions": asked})
    assert response.status_code == 201, response.content
    no = {"can_start": False, "can_evict": False, "can_stop": False}
    permissions = [
        {"instance_id": ids[0], **no},
        {"instance_id": ids[1], **no, "can_start": True, "can_stop": True},
    ]
    shown = api.get(f"{KEYS}/{response.json()['id']}").json()
    assert shown["permissions"] == permissions == response.json()["permissions"]
    assert api.get(KEYS).json()[0]["permissions"] == permissions
    # It should take what GET …/permissions shows.
    again = api.get(f"{KEYS}/{shown['id']}/permissions").json()
    copied = post(api, {**PER_INSTANCE, "permissions": again}).json()
    assert copied["permissions"] == permissions


def test_permissions_with_instance_ids_are_refused(api: Client) -> None:
    pk = lifecycle.create("one", {}, cause="test").pk
    for body in (
        {**PER_INSTANCE, "instance_ids": [pk], "permissions": [{"instance_id": pk}]},
        {**ALLOW_ALL, "permissions": [{"instance_id": pk}]},
        {**PER_INSTANCE, "permissions": [{"instance_id": pk}, {"instance_id": pk}]},
    ):
        assert post(api, body).json()["error"] == "invalid_permissions"
    assert not InferenceKey.objects.exists()


def test_list_of_keys_takes_the_same_queries_for_many_keys(
    api: Client, django_assert_num_queries: Any
) -> None:
    pk = lifecycle.create("one", {}, cause="test").pk
    for name in ("a", "b", "c"):
        issue(name=name, permission_mode="per_instance", instance_ids=[pk])
    with django_assert_num_queries(2):
        api.get(KEYS)


def test_key_for_all_instances_lists_no_permissions(api: Client) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    assert api.get(f"{KEYS}/{key.pk}/permissions").json() == []


def test_revoked_key_is_not_found(api: Client) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    assert api.delete(f"{KEYS}/{key.pk}").status_code == 204
    assert api.get(f"{KEYS}/{key.pk}").status_code == 404
    assert api.delete(f"{KEYS}/{key.pk}").status_code == 404


def test_keys_cannot_be_replaced(api: Client) -> None:
    key, _ = issue(name="app", permission_mode="allow_all")
    for method in ("put", "post"):
        assert getattr(api, method)(f"{KEYS}/{key.pk}").status_code == 405


PER_INSTANCE = {"name": "x", "permission_mode": "per_instance"}
ALLOW_ALL = {"name": "x", "permission_mode": "allow_all"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_name"),
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ('{"name":"\\u0000"}', "invalid_json"),
        ({}, "invalid_name"),
        ({"name": ""}, "invalid_name"),
        ({"name": None}, "invalid_name"),
        ({"name": 5}, "invalid_name"),
        ({"name": ["x"]}, "invalid_name"),
        ({"name": "x" * 101, "permission_mode": "allow_all"}, "invalid_name"),
        ({"name": "x"}, "invalid_permission_mode"),
        ({"name": "x", "permission_mode": None}, "invalid_permission_mode"),
        ({"name": "x", "permission_mode": {}}, "invalid_permission_mode"),
        ({"name": "x", "permission_mode": "ALLOW_ALL"}, "invalid_permission_mode"),
        (PER_INSTANCE, "missing_permissions"),
        ({**PER_INSTANCE, "instance_ids": None}, "missing_permissions"),
        ({**PER_INSTANCE, "instance_ids": []}, "missing_permissions"),
        ({**PER_INSTANCE, "instance_ids": "1"}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": {"1": 1}}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": ["1"]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [True]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [1.0]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [[1]]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [0]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [-1]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [999]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "permissions": []}, "missing_permissions"),
        ({**PER_INSTANCE, "permissions": {}}, "invalid_permissions"),
        ({**PER_INSTANCE, "permissions": [1]}, "invalid_permissions"),
        ({**PER_INSTANCE, "permissions": [{}]}, "invalid_permissions"),
        ({**PER_INSTANCE, "permissions": [{"instance_id": "1"}]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "permissions": [{"instance_id": 999}]}, "invalid_instance_id"),
        (
            {**PER_INSTANCE, "permissions": [{"instance_id": 1, "can_start": 1}]},
            "invalid_permissions",
        ),
        (
            {**PER_INSTANCE, "permissions": [{"instance_id": 1, "can_fly": True}]},
            "invalid_permissions",
        ),
        ({**PER_INSTANCE, "instance_ids": [2**63]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": [10**300]}, "invalid_instance_id"),
        ({**PER_INSTANCE, "instance_ids": list(range(1, 2000))}, "invalid_instance_id"),
        ({**ALLOW_ALL, "instance_ids": [999]}, "invalid_instance_id"),
        ({**ALLOW_ALL, "expires_at": "tomorrow"}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": True}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": 1.5}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": []}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": 0}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": 1_000_000_000}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": -(10**30)}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": 10**30}, "invalid_expires_at"),
        ({**ALLOW_ALL, "expires_at": 253_402_300_800}, "invalid_expires_at"),
    ],
)
def test_wrong_field_is_400_with_the_go_apis_code(api: Client, body: Any, code: str) -> None:
    response = post(api, body)
    assert (response.status_code, response.json()["error"]) == (400, code), response.content
    assert not InferenceKey.objects.exists()


def test_latest_possible_expiry_is_accepted(api: Client) -> None:
    response = post(api, {**ALLOW_ALL, "expires_at": 253_402_300_799})
    assert response.json()["expires_at"] == 253_402_300_799


@pytest.mark.parametrize(
    ("id_text", "status", "code"),
    [
        ("1", 404, "not_found"),
        ("0", 404, "not_found"),
        ("-5", 404, "not_found"),
        (str(2**63 - 1), 404, "not_found"),
        (str(2**63), 400, "invalid_id"),
        ("9" * 5000, 400, "invalid_id"),
        ("abc", 400, "invalid_id"),
        ("1.0", 400, "invalid_id"),
        ("1_0", 400, "invalid_id"),
        ("%00", 400, "invalid_id"),
        ("%D9%A3", 400, "invalid_id"),
        ("%20", 400, "invalid_id"),
    ],
)
def test_invalid_id_is_refused(api: Client, id_text: str, status: int, code: str) -> None:
    for method, suffix in (("get", ""), ("delete", ""), ("get", "/permissions")):
        response = getattr(api, method)(f"{KEYS}/{id_text}{suffix}")
        assert (response.status_code, response.json()["error"]) == (status, code)


def test_inference_keys_of_three_kinds_do_not_manage() -> None:
    instance = lifecycle.create("mine", {}, cause="test")
    _, for_all = issue(name="all", permission_mode="allow_all")
    _, for_one = issue(name="one", permission_mode="per_instance", instance_ids=[instance.pk])
    expired_key, expired = issue(name="expired", permission_mode="allow_all")
    InferenceKey.objects.filter(pk=expired_key.pk).update(expires_at=timezone.now())
    for plain in (for_all, for_one, expired):
        assert Client(headers={"x-api-key": plain}).get(KEYS).status_code == 401


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("expiresAt", "did you mean expires_at?"),
        ("expires_in_days", "expires_at takes unix seconds"),
        ("Name", "did you mean name?"),
        ("nonsense", "known: name, permission_mode"),
        ("x" * 100_000, "known: name, permission_mode"),
    ],
)
def test_an_unknown_field_makes_no_key(api: Client, field: str, named: str) -> None:
    document = {"name": "app", "permission_mode": "allow_all", field: 5}
    response = post(api, document)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert named in response.json()["details"]
    assert len(response.content) < 500
    assert not InferenceKey.objects.exists()


def test_an_unknown_query_parameter_makes_no_key(api: Client) -> None:
    document = {"name": "app", "permission_mode": "allow_all"}
    path = "/api/v1/auth/keys?expires_at=5"
    response = api.post(path, document, content_type="application/json")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")
    assert not InferenceKey.objects.exists()
