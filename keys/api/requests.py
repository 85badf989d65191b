"""Parsing of key documents: the types of their fields, and unknown ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from keys.changing import UNCHANGED, KeyChange, Unchanged
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
    UnknownKeyField,
)
from keys.models import InferenceKey
from keys.rights import DEFAULT_RIGHTS, Rights
from llamactl.api.json_parser import StrictJSONParser
from llamactl.core.nearest_name import nearest_name
from llamactl.core.unix_time import from_unix

LARGEST_ID = 2**63 - 1
"""Largest value of an integer column; SQLite's driver raises an error above."""
MAX_INSTANCE_IDS = 1000
MAX_OLD_KEY_HOURS = 24 * 365


class KeyJSONParser(StrictJSONParser):
    """Parser of a request for a key; the Go API has an error code of its own for invalid JSON."""

    error_class = InvalidKeyJson


@dataclass(frozen=True)
class KeyRequest:
    """Body of POST /api/v1/auth/keys with checked types; ``issue`` checks the rules."""

    name: str
    permission_mode: str
    instance_ids: frozenset[int]
    rights: Mapping[int, Rights] | None
    """By instance id, where the document has ``permissions``."""
    expires_at: datetime | None

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> KeyRequest:
        """Raises the InvalidKeyRequest of the first field that is unknown or of a wrong type."""
        _refuse_unknown_fields(document, _FIELDS)
        name = _name(document.get("name", ""))
        permission_mode = _permission_mode(document.get("permission_mode", ""))
        instance_ids = _instance_ids(document.get("instance_ids"))
        rights = _rights(document.get("permissions"))
        _refuse_both(instance_ids, rights)
        if rights and permission_mode == InferenceKey.PermissionMode.ALLOW_ALL:
            raise InvalidPermissions(
                "permissions need the permission mode 'per_instance': an 'allow_all' key may start"
                " every instance, and stop none"
            )
        return cls(
            name=name,
            permission_mode=permission_mode,
            instance_ids=instance_ids,
            rights=rights,
            expires_at=_expires_at(document.get("expires_at")),
        )


def change_of(document: Mapping[str, object] | None) -> KeyChange:
    """Parse the body of PATCH /api/v1/auth/keys/{id}; a field that is left out stays as it is.

    Raises the InvalidKeyRequest of the first field that is unknown or of a wrong type.
    """
    if document is None:
        raise InvalidKeyJson("Invalid request body: send a JSON object of the fields to change")
    _refuse_unknown_fields(document, (*_FIELDS, "blocked"))
    blocked = document.get("blocked", UNCHANGED)
    if not isinstance(blocked, bool | Unchanged):
        raise InvalidBlocked("blocked must be true or false")
    instance_ids = _instance_ids(document.get("instance_ids"))
    rights = _rights(document.get("permissions"))
    _refuse_both(instance_ids, rights)
    if rights is None and document.get("instance_ids") is not None:
        rights = dict.fromkeys(instance_ids, DEFAULT_RIGHTS)
    return KeyChange(
        name=_name(document["name"]) if "name" in document else UNCHANGED,
        permission_mode=(
            _permission_mode(document["permission_mode"])
            if "permission_mode" in document
            else UNCHANGED
        ),
        rights=UNCHANGED if rights is None else rights,
        expires_at=(_expires_at(document["expires_at"]) if "expires_at" in document else UNCHANGED),
        is_blocked=blocked,
    )


def old_valid_of(document: Mapping[str, object] | None) -> timedelta:
    """Parse the body of POST /api/v1/auth/keys/{id}/rotate: how long the old key stays valid."""
    if document is None:
        raise InvalidKeyJson(
            'Invalid request body: send {"old_key_hours": 24}, or {} to end the old key at once'
        )
    _refuse_unknown_fields(document, ("old_key_hours",))
    hours = document.get("old_key_hours", 0)
    if not isinstance(hours, int | float) or isinstance(hours, bool):
        raise InvalidOldKeyHours("old_key_hours must be a number")
    if not 0 <= hours <= MAX_OLD_KEY_HOURS:
        raise InvalidOldKeyHours(f"old_key_hours must be between 0 and {MAX_OLD_KEY_HOURS}")
    return timedelta(hours=hours)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidKeyName("Name must be a string")
    return value


def _permission_mode(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidPermissionMode("Permission mode must be 'allow_all' or 'per_instance'")
    return value


def _refuse_both(instance_ids: frozenset[int], rights: Mapping[int, Rights] | None) -> None:
    if rights is not None and instance_ids:
        raise InvalidPermissions(
            "Send either instance_ids or permissions: both say which instances the key opens"
        )


_FIELDS = ("name", "permission_mode", "instance_ids", "permissions", "expires_at")
_RIGHTS = ("can_start", "can_evict", "can_stop")
_MEANT = {
    "is_blocked": "did you mean blocked?",
    "key": "llamactl makes the key",
    "expires": "expires_at takes unix seconds",
    "expires_in": "expires_at takes unix seconds",
    "expires_in_days": "expires_at takes unix seconds",
    "ttl": "expires_at takes unix seconds",
}


def _refuse_unknown_fields(document: Mapping[str, object], known: tuple[str, ...]) -> None:
    for name in document:
        if name in known:
            continue
        nearest = nearest_name(name, known)
        hint = f"did you mean {nearest}?" if nearest else f"known: {', '.join(known)}"
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
    _refuse_too_many(value)
    return frozenset(_instance_id(item) for item in value)


def _instance_id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInstanceId("Instance IDs must be whole numbers")
    if not 0 < value <= LARGEST_ID:
        raise InvalidInstanceId(f"Instance ID {str(value)[:20]} does not exist")
    return value


def _refuse_too_many(instances: list[object]) -> None:
    if len(instances) > MAX_INSTANCE_IDS:
        raise InvalidInstanceId(
            f"At most {MAX_INSTANCE_IDS} instance IDs fit one key; for more, use 'allow_all'"
        )


def _rights(value: object) -> dict[int, Rights] | None:
    """Parse ``permissions``; a right that is left out is not given."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidPermissions("permissions must be a list of objects with an instance_id")
    _refuse_too_many(value)
    found: dict[int, Rights] = {}
    for item in value:
        if not isinstance(item, dict) or "instance_id" not in item:
            raise InvalidPermissions("Each item of permissions must be an object with instance_id")
        instance_id = _instance_id(item["instance_id"])
        if instance_id in found:
            raise InvalidPermissions(f"permissions has instance_id {instance_id} twice")
        found[instance_id] = _rights_of_item(item)
    return found


def _rights_of_item(item: Mapping[str, object]) -> Rights:
    given = {}
    for name, value in item.items():
        # A permission as GET shows it may be sent back.
        if name in ("instance_id", "instance_name"):
            continue
        if name not in _RIGHTS:
            known = ", ".join(("instance_id", *_RIGHTS))
            raise InvalidPermissions(f"Unknown field {name[:80]!r} in permissions; known: {known}")
        if not isinstance(value, bool):
            raise InvalidPermissions(f"{name} in permissions must be true or false")
        given[name] = value
    return Rights(**given)


def parse_key_id(text: str) -> int:
    """Parse the id in a path. Raises InvalidKeyId for anything but a 64-bit number."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise InvalidKeyId("Invalid key ID: it must be a whole number")
    if int(digits) > LARGEST_ID:
        raise InvalidKeyId("Invalid key ID: it is too large")
    return int(text)
