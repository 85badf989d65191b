"""Errors of operations on keys, with the Go API's error codes."""

from __future__ import annotations

from llamactl.core.errors import LlamactlError


class KeyNotFound(LlamactlError):
    code = "not_found"
    status = 404


class InvalidKeyRequest(LlamactlError):
    """A wrong field of a key; each subclass is one of the Go API's codes."""

    status = 400


class InvalidKeyJson(InvalidKeyRequest):
    code = "invalid_json"


class UnknownKeyField(InvalidKeyRequest):
    """A field that has no effect: a misspelt expiry would make a key that never expires."""

    code = "invalid_request"


class InvalidKeyName(InvalidKeyRequest):
    code = "invalid_name"


class InvalidPermissionMode(InvalidKeyRequest):
    code = "invalid_permission_mode"


class MissingPermissions(InvalidKeyRequest):
    code = "missing_permissions"


class InvalidExpiry(InvalidKeyRequest):
    code = "invalid_expires_at"


class InvalidInstanceId(InvalidKeyRequest):
    code = "invalid_instance_id"


class InvalidPermissions(InvalidKeyRequest):
    """Wrong rights on an instance; the Go API has no code for them."""

    code = "invalid_permissions"


class InvalidBlocked(InvalidKeyRequest):
    code = "invalid_blocked"


class InvalidOldKeyHours(InvalidKeyRequest):
    """A wrong time for which the secret before a rotation stays valid."""

    code = "invalid_old_key_hours"


class InvalidKeyId(InvalidKeyRequest):
    code = "invalid_id"
