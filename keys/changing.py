"""Rules of changing and rotating inference keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from keys.errors import InvalidPermissions, KeyNotFound
from keys.issuing import validate
from keys.models import ImportedHash, InferenceKey
from keys.rights import Rights, replace_rights, rights_of
from keys.secrets import HINT_LENGTH, digest, new_inference_key
from llamactl.core.events import announce
from llamactl.models import Topic


@dataclass(frozen=True)
class Unchanged:
    """The value of a field that a change leaves as it is."""


UNCHANGED = Unchanged()


@dataclass(frozen=True)
class KeyChange:
    """The fields of a key to change."""

    name: str | Unchanged = UNCHANGED
    permission_mode: str | Unchanged = UNCHANGED
    rights: Mapping[int, Rights] | Unchanged = UNCHANGED
    """The opened instances, all of them, for a per_instance key."""
    expires_at: datetime | Unchanged | None = UNCHANGED
    is_blocked: bool | Unchanged = UNCHANGED


def change(key_id: int, asked: KeyChange) -> None:
    """Change a key, and announce it to the web processes.

    Raises KeyNotFound, InvalidPermissions, or the errors of ``issue``; nothing is saved then.
    """
    with transaction.atomic():
        key = _locked(key_id)
        is_new_expiry = _is_new_expiry(asked.expires_at, key.expires_at)
        if not isinstance(asked.name, Unchanged):
            key.name = asked.name
        if not isinstance(asked.permission_mode, Unchanged):
            key.permission_mode = asked.permission_mode
        if not isinstance(asked.is_blocked, Unchanged):
            key.is_blocked = asked.is_blocked
        if is_new_expiry and not isinstance(asked.expires_at, Unchanged):
            key.expires_at = asked.expires_at
        rights = _rights_after(key, asked.rights)
        validate(
            name=key.name,
            permission_mode=key.permission_mode,
            instance_ids=set(rights),
            # An expired key may still be renamed or blocked.
            expires_at=key.expires_at if is_new_expiry else None,
            may_be_empty=asked.permission_mode == asked.rights == UNCHANGED,
        )
        key.save(
            update_fields=["name", "permission_mode", "is_blocked", "expires_at", "updated_at"]
        )
        replace_rights(key, rights)
        announce(Topic.KEYS, key.name)


def rotate(key_id: int, *, old_valid: timedelta) -> tuple[InferenceKey, str]:
    """Give a key a new secret; return its row and the plain text, which is stored nowhere.

    The old secret stays valid for ``old_valid``; one of an earlier rotation ends now. Raises
    KeyNotFound.
    """
    plain = new_inference_key()
    with transaction.atomic():
        key = _locked(key_id)
        key.old_digest = key.old_valid_until = None
        if old_valid:
            key.old_digest = key.digest
            key.old_valid_until = timezone.now() + old_valid
        else:
            # A key of the Go program that was not used yet is recognised by its hash alone.
            ImportedHash.objects.filter(key=key).update(key=None)
        key.digest, key.hint = digest(plain), plain[-HINT_LENGTH:]
        key.save(update_fields=["digest", "hint", "old_digest", "old_valid_until", "updated_at"])
        announce(Topic.KEYS, key.name)
    return key, plain


def _locked(key_id: int) -> InferenceKey:
    try:
        return InferenceKey.objects.select_for_update().get(pk=key_id)
    except InferenceKey.DoesNotExist:
        raise KeyNotFound(f"API key {key_id} not found; GET /api/v1/auth/keys lists them") from None


def _is_new_expiry(asked: datetime | Unchanged | None, present: datetime | None) -> bool:
    """Whether the expiry changes: a document that sends the shown second back changes nothing."""
    if isinstance(asked, Unchanged):
        return False
    if asked is None or present is None:
        return asked is not present
    return int(asked.timestamp()) != int(present.timestamp())


def _rights_after(
    key: InferenceKey, asked: Mapping[int, Rights] | Unchanged
) -> Mapping[int, Rights]:
    if key.permission_mode == InferenceKey.PermissionMode.ALLOW_ALL:
        if not isinstance(asked, Unchanged) and asked:
            raise InvalidPermissions(
                "permissions and instance_ids need the permission mode 'per_instance', and this key"
                " opens all instances; send permission_mode too"
            )
        return {}
    return rights_of(key) if isinstance(asked, Unchanged) else asked
