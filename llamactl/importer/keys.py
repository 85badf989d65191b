"""Import of the Go llamactl's inference keys."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from django.utils import timezone

from instances.models import Instance
from keys.argon2id import is_argon2id
from keys.models import MAX_NAME_LENGTH, ImportedHash, InferenceKey
from keys.rights import Rights, replace_rights, rights_of
from llamactl.core.events import announce
from llamactl.importer.go_database import GoKey
from llamactl.importer.report import Entry, Outcome
from llamactl.models import Topic


def import_keys(
    found: tuple[GoKey, ...], instances: dict[int, Instance], new_ids: set[int]
) -> list[Entry]:
    """Import keys; ``instances`` are the instances here for each id of the Go program.

    A key that was imported before keeps the permissions that it has here. It only gets the
    instances of ``new_ids``, which this import has brought.
    """
    entries = []
    for go in found:
        entry = Entry("key", go.name)
        entries.append(entry)
        known = ImportedHash.objects.select_related("key").filter(argon2=go.argon2).first()
        if known is None:
            _create(go, entry, instances)
        elif known.key is None:
            entry.outcome = Outcome.UNCHANGED
            entry.notes.append("it was revoked here since, and stays revoked")
        else:
            entry.outcome = Outcome.UNCHANGED
            added = [each for each in _opened(go, instances) if each.pk in new_ids]
            if added and go.permission_mode == InferenceKey.PermissionMode.PER_INSTANCE:
                rights = _rights(go, instances)
                replace_rights(
                    known.key,
                    {**rights_of(known.key), **{each.pk: rights[each.pk] for each in added}},
                )
                names = ", ".join(instance.name for instance in added)
                entry.notes.append(f"it opens {names} too, imported just now")
    announce(Topic.KEYS, "")
    return entries


def _create(go: GoKey, entry: Entry, instances: dict[int, Instance]) -> None:
    if refusal := _refusal(go):
        entry.refuse(refusal)
        return
    is_per_instance = go.permission_mode == InferenceKey.PermissionMode.PER_INSTANCE
    key = InferenceKey.objects.create(
        pk=None if InferenceKey.objects.filter(pk=go.id).exists() else go.id,
        name=go.name[:MAX_NAME_LENGTH],
        # Opens nothing: no key has a random digest. See ``ImportedHash``.
        digest=secrets.token_bytes(32),
        hint="",
        user_id=go.user_id[:50],
        permission_mode=go.permission_mode,
        expires_at=_time(go.expires_at),
        last_used_at=_time(go.last_used_at),
    )
    InferenceKey.objects.filter(pk=key.pk).update(created_at=_time(go.created_at))
    ImportedHash.objects.create(argon2=go.argon2, key=key)
    if is_per_instance:
        replace_rights(key, _rights(go, instances))
        _note_permissions(go, entry, instances)
    if key.pk != go.id:
        entry.notes.append(f"id {go.id} is taken here; its id is {key.pk} now")
    if key.is_expired(timezone.now()):
        entry.notes.append("it has expired")


def _refusal(go: GoKey) -> str:
    if not is_argon2id(go.argon2):
        return "its hash is no Argon2id hash that can be checked"
    if go.permission_mode not in InferenceKey.PermissionMode.values:
        return f"its permission mode {go.permission_mode[:80]!r} is not known"
    if not go.is_enabled:
        return "it is disabled there"
    return ""


def _opened(go: GoKey, instances: dict[int, Instance]) -> list[Instance]:
    return [instances[each.instance_id] for each in go.permissions if each.instance_id in instances]


def _rights(go: GoKey, instances: dict[int, Instance]) -> dict[int, Rights]:
    return {
        instances[each.instance_id].pk: Rights(each.can_start, each.can_evict)
        for each in go.permissions
        if each.instance_id in instances
    }


def _note_permissions(go: GoKey, entry: Entry, instances: dict[int, Instance]) -> None:
    missing = [each for each in go.permissions if each.instance_id not in instances]
    if missing:
        ids = ", ".join(str(each.instance_id) for each in missing)
        entry.notes.append(f"it does not open the instances that were not imported (id {ids})")


def _time(seconds: int | None) -> datetime | None:
    """Return unix seconds as a time; a time after the year 9999 becomes that year's end."""
    if seconds is None:
        return None
    latest = datetime(9999, 12, 31, tzinfo=UTC)
    return datetime.fromtimestamp(min(seconds, int(latest.timestamp())), tz=UTC)
