"""JSON shapes of inference keys: requests and responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rest_framework import serializers

from instances.models import Instance
from keys.errors import (
    InvalidExpiry,
    InvalidInstanceId,
    InvalidKeyId,
    InvalidKeyJson,
    InvalidKeyName,
    InvalidPermissionMode,
    UnknownKeyField,
)
from keys.models import MAX_NAME_LENGTH, InferenceKey
from llamactl.api.json_parser import StrictJSONParser
from llamactl.core.nearest_name import nearest_name
from llamactl.core.unix_time import LAST_UNIX_SECOND, UnixSecondsField, from_unix

LARGEST_ID = 2**63 - 1
"""Largest value of an integer column; SQLite's driver raises an error above."""
MAX_INSTANCE_IDS = 1000


class KeyJSONParser(StrictJSONParser):
    """Parser of a request for a key; the Go API has an error code of its own for invalid JSON."""

    error_class = InvalidKeyJson


@dataclass(frozen=True)
class KeyRequest:
    """Body of POST /api/v1/auth/keys with checked types; ``issue`` checks the rules."""

    name: str
    permission_mode: str
    instance_ids: frozenset[int]
    expires_at: datetime | None

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> KeyRequest:
        """Raises the InvalidKeyRequest of the first field that is unknown or of a wrong type."""
        _refuse_unknown_fields(document)
        name = document.get("name", "")
        if not isinstance(name, str):
            raise InvalidKeyName("Name must be a string")
        permission_mode = document.get("permission_mode", "")
        if not isinstance(permission_mode, str):
            raise InvalidPermissionMode("Permission mode must be 'allow_all' or 'per_instance'")
        return cls(
            name=name,
            permission_mode=permission_mode,
            instance_ids=_instance_ids(document.get("instance_ids")),
            expires_at=_expires_at(document.get("expires_at")),
        )


_FIELDS = ("name", "permission_mode", "instance_ids", "expires_at")
_MEANT = {
    "permissions": "permission_mode and instance_ids say what a key opens",
    "key": "llamactl makes the key",
    "expires": "expires_at takes unix seconds",
    "expires_in": "expires_at takes unix seconds",
    "expires_in_days": "expires_at takes unix seconds",
    "ttl": "expires_at takes unix seconds",
}


def _refuse_unknown_fields(document: Mapping[str, object]) -> None:
    for name in document:
        if name in _FIELDS:
            continue
        nearest = nearest_name(name, _FIELDS)
        hint = f"did you mean {nearest}?" if nearest else f"known: {', '.join(_FIELDS)}"
        raise UnknownKeyField(f"Unknown field {name[:80]!r}; {_MEANT.get(name, hint)}")


def _expires_at(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidExpiry("Expiration time must be a whole number of unix seconds, or null")
    try:
        return from_unix(value)
    except ValueError as error:
        raise InvalidExpiry(f"Expiration time must be in the future; it is {error}") from None


def _instance_ids(value: object) -> frozenset[int]:
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise InvalidInstanceId("Instance IDs must be a list of whole numbers")
    if len(value) > MAX_INSTANCE_IDS:
        raise InvalidInstanceId(
            f"At most {MAX_INSTANCE_IDS} instance IDs fit one key; for more, use 'allow_all'"
        )
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool):
            raise InvalidInstanceId("Instance IDs must be whole numbers")
        if not 0 < item <= LARGEST_ID:
            raise InvalidInstanceId(f"Instance ID {str(item)[:20]} does not exist")
    return frozenset(value)


def parse_key_id(text: str) -> int:
    """Parse the id in a path. Raises InvalidKeyId for anything but a 64-bit number."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise InvalidKeyId("Invalid key ID: it must be a whole number")
    if int(digits) > LARGEST_ID:
        raise InvalidKeyId("Invalid key ID: it is too large")
    return int(text)


class KeySerializer(serializers.ModelSerializer[InferenceKey]):
    """A key without its secret."""

    id = serializers.IntegerField(read_only=True)
    expires_at = UnixSecondsField(allow_null=True)
    created_at = UnixSecondsField()
    updated_at = UnixSecondsField()
    last_used_at = UnixSecondsField(allow_null=True)

    class Meta:
        model = InferenceKey
        fields = (
            "id",
            "name",
            "user_id",
            "permission_mode",
            "expires_at",
            "created_at",
            "updated_at",
            "last_used_at",
        )
        read_only_fields = fields


class PermissionSerializer(serializers.ModelSerializer[Instance]):
    """An instance opened by a key."""

    instance_id = serializers.IntegerField(source="id", read_only=True)
    instance_name = serializers.CharField(source="name", read_only=True)

    class Meta:
        model = Instance
        fields = ("instance_id", "instance_name")


class CreatedKeySerializer(KeySerializer):
    """A new key with its plain text."""

    key = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields: Any = (*KeySerializer.Meta.fields, "key")
        read_only_fields: Any = fields


class CreateKeySerializer(serializers.Serializer[Any]):
    """The inference key to create."""

    # For the schema only: ``KeyRequest`` parses the document.
    name = serializers.CharField(
        max_length=MAX_NAME_LENGTH, help_text="Tells keys apart; need not be unique."
    )
    permission_mode = serializers.ChoiceField(
        InferenceKey.PermissionMode.choices,
        help_text="allow_all opens all instances, later ones too; per_instance opens those of"
        " instance_ids.",
    )
    instance_ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=LARGEST_ID),
        required=False,
        allow_null=True,
        max_length=MAX_INSTANCE_IDS,
        help_text="For per_instance: the ids of the instances.",
    )
    expires_at = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=LAST_UNIX_SECOND,
        help_text="Unix seconds, in the future; null for never.",
    )
