"""Rules of issuing, changing and revoking inference keys, for the API and the admin."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from instances.models import Instance
from keys.errors import (
    InvalidExpiry,
    InvalidInstanceId,
    InvalidKeyName,
    InvalidPermissionMode,
    MissingPermissions,
)
from keys.models import MAX_NAME_LENGTH, InferenceKey
from keys.secrets import HINT_LENGTH, digest, new_inference_key
from llamactl.core.events import announce
from llamactl.models import Topic


def issue(
    *,
    name: str,
    permission_mode: str,
    instance_ids: Iterable[int] = (),
    expires_at: datetime | None = None,
) -> tuple[InferenceKey, str]:
    """Create a key; return its row and its plain text, which is stored nowhere.

    Raises InvalidKeyName, InvalidPermissionMode, MissingPermissions, InvalidExpiry or
    InvalidInstanceId, in the Go API's order.
    """
    opened_ids = set(instance_ids)
    plain = new_inference_key()
    with transaction.atomic():
        validate(
            name=name,
            permission_mode=permission_mode,
            instance_ids=opened_ids,
            expires_at=expires_at,
        )
        key = InferenceKey.objects.create(
            name=name,
            digest=digest(plain),
            hint=plain[-HINT_LENGTH:],
            permission_mode=permission_mode,
            expires_at=expires_at,
        )
        if permission_mode == InferenceKey.PermissionMode.PER_INSTANCE:
            key.instances.set(opened_ids)
        announce(Topic.KEYS, name)
    return key, plain


def validate(
    *, name: str, permission_mode: str, instance_ids: set[int], expires_at: datetime | None
) -> None:
    """Raise the errors of ``issue`` without creating a key."""
    if not name.strip():
        raise InvalidKeyName("Name is required")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidKeyName(f"Name must be at most {MAX_NAME_LENGTH} characters")
    if "\x00" in name:
        raise InvalidKeyName("Name must not contain a NUL character")
    if permission_mode not in InferenceKey.PermissionMode.values:
        raise InvalidPermissionMode(
            f"Permission mode must be 'allow_all' or 'per_instance', got {permission_mode[:80]!r}"
        )
    if permission_mode == InferenceKey.PermissionMode.PER_INSTANCE and not instance_ids:
        raise MissingPermissions("Instance IDs are required for permission mode 'per_instance'")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidExpiry("Expiration time must be in the future")
    known = set(Instance.objects.filter(id__in=instance_ids).values_list("id", flat=True))
    for missing in sorted(instance_ids - known):
        raise InvalidInstanceId(f"Instance ID {missing} does not exist")


def revoke(keys: Iterable[InferenceKey]) -> int:
    """Delete keys and return their number. Each web process refuses them within a second."""
    ids = [key.pk for key in keys]
    with transaction.atomic():
        InferenceKey.objects.filter(pk__in=ids).delete()
        announce(Topic.KEYS, "")
    return len(ids)


def announce_change(key: InferenceKey) -> None:
    """Announce an edited key (narrowed, renamed, expired) to the web processes."""
    with transaction.atomic():
        announce(Topic.KEYS, key.name)
