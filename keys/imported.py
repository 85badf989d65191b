"""First use of a key that was imported from the Go llamactl."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from keys.models import ImportedHash, InferenceKey
from keys.secrets import HINT_LENGTH, digest
from llamactl.core.events import announce
from llamactl.models import Topic


def unrecognised_hashes() -> tuple[str, ...]:
    """Return the Argon2id hashes whose key was not used here yet, and is neither gone nor expired.

    The order is that of the last use in the Go program, the latest first: the likeliest hash.
    """
    rows = ImportedHash.objects.filter(recognised_at=None, key__isnull=False)
    now = timezone.now()
    return tuple(
        row.argon2
        for row in rows.select_related("key").order_by("-key__last_used_at", "pk")
        if row.key is not None and not row.key.is_expired(now)
    )


def recognise(argon2: str, key: str) -> None:
    """Store the SHA-256 of ``key``, whose Argon2id hash is ``argon2``; from now on it is found.

    A key that was rotated meanwhile has another secret already, and this one is its old one.
    """
    with transaction.atomic():
        rows = ImportedHash.objects.select_for_update().filter(argon2=argon2, recognised_at=None)
        found = rows.first()
        if found is None or found.key_id is None:
            return  # another web process was first, or the key was revoked
        found.recognised_at = timezone.now()
        found.save(update_fields=["recognised_at"])
        row = InferenceKey.objects.filter(pk=found.key_id)
        if not row.filter(old_digest__isnull=False).update(old_digest=digest(key)):
            row.update(digest=digest(key), hint=key[-HINT_LENGTH:])
        announce(Topic.KEYS, "")
