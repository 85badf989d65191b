"""Rules of issuing, changing and revoking inference keys, for the API and the admin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from keys.rights import DEFAULT_RIGHTS, Rights, replace_rights
from keys.secrets import HINT_LENGTH, digest, new_inference_key
from llamactl.core.events import announce
from llamactl.models import Topic


def issue(
    *,
    name: str,
    permission_mode: str,
    instance_ids: Iterable[int] = (),
    rights: Mapping[int, Rights] | None = None,
    expires_at: datetime | None = None,
) -> tuple[InferenceKey, str]:
    """Create a key; return its row and its plain text, which is stored nowhere.

    A per_instance key opens ``instance_ids`` with the usual rights, or ``rights`` by instance id.
    Raises InvalidKeyName, InvalidPermissionMode, MissingPermissions, InvalidExpiry or
    InvalidInstanceId, in the Go API's order.
    """
    if rights is None:
        rights = dict.fromkeys(instance_ids, DEFAULT_RIGHTS)
    plain = new_inference_key()
    with transaction.atomic():
        validate(
            name=name,
            permission_mode=permission_mode,
            instance_ids=set(rights),
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
            replace_rights(key, rights)
        announce(Topic.KEYS, name)
    return key, plain


def validate(
    *,
    name: str,
    permission_mode: str,
    instance_ids: set[int],
    expires_at: datetime | None,
    may_be_empty: bool = False,
) -> None:
    """Raise the errors of ``issue`` without creating a key.

    ``may_be_empty``: the instances of a per_instance key do not change, and may all be deleted.
    """
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
    is_per_instance = permission_mode == InferenceKey.PermissionMode.PER_INSTANCE
    if is_per_instance and not instance_ids and not may_be_empty:
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
