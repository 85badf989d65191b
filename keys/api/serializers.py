"""JSON shapes of inference keys, for answers and the schema; ``requests`` parses documents."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from keys.api.requests import LARGEST_ID, MAX_INSTANCE_IDS, MAX_OLD_KEY_HOURS
from keys.models import MAX_NAME_LENGTH, InferenceKey, KeyPermission
from llamactl.core.unix_time import LAST_UNIX_SECOND, UnixSecondsField

_RIGHTS = ("can_start", "can_evict", "can_stop")


class RightsSerializer(serializers.ModelSerializer[KeyPermission]):
    """The rights of a key on an instance that it opens."""

    instance_id = serializers.IntegerField(read_only=True)

    class Meta:
        model = KeyPermission
        fields: Any = ("instance_id", *_RIGHTS)
        read_only_fields: Any = fields
        extra_kwargs: Any = {
            "can_start": {"help_text": "A request may start the instance."},
            "can_evict": {
                "help_text": "Its start may stop another instance, where a limit is reached."
            },
            "can_stop": {"help_text": "The key may stop the instance."},
        }


class KeySerializer(serializers.ModelSerializer[InferenceKey]):
    """A key without its secret."""

    id = serializers.IntegerField(read_only=True)
    permissions = RightsSerializer(many=True, read_only=True)
    blocked = serializers.BooleanField(
        source="is_blocked",
        read_only=True,
        help_text="The key opens nothing until it is unblocked.",
    )
    old_key_expires_at = serializers.SerializerMethodField(
        help_text="Until when the secret before the last rotation is valid; null without one."
    )
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
            "permissions",
            "blocked",
            "expires_at",
            "old_key_expires_at",
            "created_at",
            "updated_at",
            "last_used_at",
        )
        read_only_fields = fields

    def get_old_key_expires_at(self, key: InferenceKey) -> int | None:
        until = key.old_valid_until
        return None if until is None or until <= timezone.now() else int(until.timestamp())


class PermissionSerializer(RightsSerializer):
    """An instance opened by a key, with the key's rights on it."""

    instance_name = serializers.CharField(source="instance.name", read_only=True)

    class Meta(RightsSerializer.Meta):
        fields: Any = ("instance_id", "instance_name", *_RIGHTS)
        read_only_fields: Any = fields


class CreatedKeySerializer(KeySerializer):
    """A new key with its plain text."""

    key = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields: Any = (*KeySerializer.Meta.fields, "key")
        read_only_fields: Any = fields


class PermissionRequestSerializer(serializers.Serializer[Any]):
    """An instance to open, and the rights on it; a right that is left out is not given."""

    instance_id = serializers.IntegerField(min_value=1, max_value=LARGEST_ID)
    can_start = serializers.BooleanField(
        required=False, help_text="A request may start the instance."
    )
    can_evict = serializers.BooleanField(
        required=False,
        help_text="Its start may stop another instance, where a limit is reached.",
    )
    can_stop = serializers.BooleanField(
        required=False, help_text="The key may stop the instance (POST /models/unload)."
    )


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
        help_text="For per_instance: the ids of the instances, which the key may also start.",
    )
    permissions = PermissionRequestSerializer(
        many=True,
        required=False,
        allow_null=True,
        help_text="Instead of instance_ids: the instances, and what the key may do with each.",
    )
    expires_at = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=LAST_UNIX_SECOND,
        help_text="Unix seconds, in the future; null for never.",
    )


class ChangeKeySerializer(CreateKeySerializer):
    """The fields of a key to change; those that are left out stay as they are."""

    name = serializers.CharField(max_length=MAX_NAME_LENGTH, required=False)
    permission_mode = serializers.ChoiceField(InferenceKey.PermissionMode.choices, required=False)
    blocked = serializers.BooleanField(
        required=False, help_text="true: the key opens nothing until it is unblocked."
    )


class RotateKeySerializer(serializers.Serializer[Any]):
    """The rotation of a key."""

    old_key_hours = serializers.FloatField(
        required=False,
        min_value=0,
        max_value=MAX_OLD_KEY_HOURS,
        help_text="How long the old key stays valid; 0, the default: it ends at once.",
    )
