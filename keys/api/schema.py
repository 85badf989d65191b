"""What the OpenAPI document says about the keys' operations."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter

from keys.api.serializers import (
    CreatedKeySerializer,
    CreateKeySerializer,
    KeySerializer,
    PermissionSerializer,
)
from llamactl.openapi import operation

_TAG = "Keys"
_ID = OpenApiParameter("id", int, OpenApiParameter.PATH)

list_keys = operation(
    _TAG, "List the inference keys, newest first", answer=KeySerializer(many=True)
)
create_key = operation(
    _TAG,
    "Make an inference key",
    description="The answer is the only one that ever holds the key itself.",
    request=CreateKeySerializer,
    status=201,
    answer=CreatedKeySerializer,
    errors=[400],
)
show_key = operation(
    _TAG,
    "Show an inference key",
    parameters=[_ID],
    answer=KeySerializer,
    errors=[400, 404],
)
revoke_key = operation(
    _TAG,
    "Revoke an inference key",
    description="It stops working everywhere within a second.",
    parameters=[_ID],
    status=204,
    errors=[400, 404],
)
list_permissions = operation(
    _TAG,
    "List the instances that a per_instance key opens",
    parameters=[_ID],
    answer=PermissionSerializer(many=True),
    errors=[400, 404],
)
