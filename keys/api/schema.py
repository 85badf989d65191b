"""OpenAPI descriptions of the inference keys' operations."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from keys.api.requests import LARGEST_ID, MAX_OLD_KEY_HOURS
from keys.api.serializers import (
    ChangeKeySerializer,
    CreatedKeySerializer,
    CreateKeySerializer,
    KeySerializer,
    PermissionSerializer,
    RotateKeySerializer,
)
from keys.errors import (
    InvalidBlocked,
    InvalidExpiry,
    InvalidInstanceId,
    InvalidKeyId,
    InvalidKeyJson,
    InvalidKeyName,
    InvalidOldKeyHours,
    InvalidPermissionMode,
    InvalidPermissions,
    KeyNotFound,
    MissingPermissions,
)
from llamactl.openapi import operation

_TAG = "Keys"
_ID = OpenApiParameter(
    "id",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
    OpenApiParameter.PATH,
    description="Id of the key; not a secret.",
    examples=[OpenApiExample("1", value=1)],
)
_UNKNOWN = [
    InvalidKeyId("Invalid key ID: it must be a whole number"),
    KeyNotFound("API key 7 not found; GET /api/v1/auth/keys lists them"),
]

_KEY: dict[str, Any] = {
    "id": 1,
    "name": "chat app",
    "user_id": "system",
    "permission_mode": "per_instance",
    "permissions": [{"instance_id": 1, "can_start": True, "can_evict": True, "can_stop": False}],
    "blocked": False,
    "expires_at": 4102444800,
    "old_key_expires_at": None,
    "created_at": 1765217762,
    "updated_at": 1765217762,
    "last_used_at": None,
}
_USED: dict[str, object] = {"used": {**_KEY, "last_used_at": 1765221362}}

list_keys = operation(
    _TAG,
    "List the inference keys, newest first",
    name="list_keys",
    answer=KeySerializer(many=True),
    answers={"one key": _KEY},
)
create_key = operation(
    _TAG,
    "Create an inference key",
    name="create_key",
    description="Only this response ever holds the key itself.",
    request=CreateKeySerializer,
    requests={
        "for all instances": {"name": "chat app", "permission_mode": "allow_all"},
        "for one instance, until 2100": {
            "name": "chat app",
            "permission_mode": "per_instance",
            "instance_ids": [1],
            "expires_at": 4102444800,
        },
        "for one instance, which it may start and stop": {
            "name": "editor",
            "permission_mode": "per_instance",
            "permissions": [{"instance_id": 1, "can_start": True, "can_stop": True}],
        },
    },
    status=201,
    answer=CreatedKeySerializer,
    answers={"a new key": {**_KEY, "key": f"llamactl-{'0123456789abcdef' * 4}"}},
    errors=[
        InvalidKeyJson("Invalid request body: it is not JSON: Expecting value at line 1 column 1"),
        InvalidKeyName("Name is required"),
        InvalidPermissionMode("Permission mode must be 'allow_all' or 'per_instance', got 'some'"),
        MissingPermissions("Instance IDs are required for permission mode 'per_instance'"),
        InvalidInstanceId("Instance ID 9 does not exist"),
        InvalidExpiry("Expiration time must be in the future"),
        InvalidPermissions("can_start in permissions must be true or false"),
    ],
)
show_key = operation(
    _TAG,
    "Show an inference key",
    name="show_key",
    parameters=[_ID],
    answer=KeySerializer,
    answers=_USED,
    errors=_UNKNOWN,
)
change_key = operation(
    _TAG,
    "Change an inference key",
    name="change_key",
    description="Fields that are left out stay as they are. Each web process knows the change"
    " within a second; streams under way go on.",
    parameters=[_ID],
    request=ChangeKeySerializer,
    requests={
        "block": {"blocked": True},
        "rename, without an expiry": {"name": "chat app", "expires_at": None},
        "open two instances": {
            "permission_mode": "per_instance",
            "permissions": [
                {"instance_id": 1, "can_start": True, "can_evict": True},
                {"instance_id": 2},
            ],
        },
    },
    answer=KeySerializer,
    answers={"the changed key": _KEY},
    errors=[
        *_UNKNOWN,
        InvalidKeyJson("Invalid request body: it is not JSON: Expecting value at line 1 column 1"),
        InvalidKeyName("Name is required"),
        InvalidPermissionMode("Permission mode must be 'allow_all' or 'per_instance', got 'some'"),
        MissingPermissions("Instance IDs are required for permission mode 'per_instance'"),
        InvalidInstanceId("Instance ID 9 does not exist"),
        InvalidExpiry("Expiration time must be in the future"),
        InvalidPermissions("can_start in permissions must be true or false"),
        InvalidBlocked("blocked must be true or false"),
    ],
)
rotate_key = operation(
    _TAG,
    "Give an inference key a new secret",
    name="rotate_key",
    description="Id, name, rights and usage stay. Only this response ever holds the new key. The"
    " old one stays valid for old_key_hours; one of an earlier rotation ends now.",
    parameters=[_ID],
    request=RotateKeySerializer,
    requests={"the old key ends in a day": {"old_key_hours": 24}, "it ends now": {}},
    answer=CreatedKeySerializer,
    answers={
        "the new key": {
            **_KEY,
            "old_key_expires_at": 1765304162,
            "key": f"llamactl-{'0123456789abcdef' * 4}",
        }
    },
    errors=[
        *_UNKNOWN,
        InvalidKeyJson("Invalid request body: it is not JSON: Expecting value at line 1 column 1"),
        InvalidOldKeyHours(f"old_key_hours must be between 0 and {MAX_OLD_KEY_HOURS}"),
    ],
)
revoke_key = operation(
    _TAG,
    "Revoke an inference key",
    name="revoke_key",
    description="Each web process refuses the key within a second.",
    parameters=[_ID],
    status=204,
    errors=_UNKNOWN,
)
list_permissions = operation(
    _TAG,
    "List the instances of a per_instance key",
    name="list_key_permissions",
    parameters=[_ID],
    answer=PermissionSerializer(many=True),
    answers={
        "one instance": {
            "instance_id": 1,
            "instance_name": "gemma",
            "can_start": True,
            "can_evict": True,
            "can_stop": False,
        }
    },
    errors=_UNKNOWN,
)
