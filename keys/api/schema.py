"""OpenAPI descriptions of the inference keys' operations."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from keys.api.serializers import (
    LARGEST_ID,
    CreatedKeySerializer,
    CreateKeySerializer,
    KeySerializer,
    PermissionSerializer,
)
from keys.errors import (
    InvalidExpiry,
    InvalidInstanceId,
    InvalidKeyId,
    InvalidKeyJson,
    InvalidKeyName,
    InvalidPermissionMode,
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
    "expires_at": 4102444800,
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
    answers={"one instance": {"instance_id": 1, "instance_name": "gemma"}},
    errors=_UNKNOWN,
)
