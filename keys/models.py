"""Models of the app: inference keys, and their usage."""

from __future__ import annotations

from datetime import datetime

from django.db import models

from instances.models import Instance
from keys.usage.models import RequestRecord, UsageDay, UsageHour, UsageWriter

__all__ = [
    "ImportedHash",
    "InferenceKey",
    "KeyPermission",
    "RequestRecord",
    "UsageDay",
    "UsageHour",
    "UsageWriter",
]

MAX_NAME_LENGTH = 100


class InferenceKey(models.Model):
    """A key with which an application sends requests to instances.

    The plain text is shown once and never stored.
    """

    class PermissionMode(models.TextChoices):
        ALLOW_ALL = "allow_all", "all instances"
        PER_INSTANCE = "per_instance", "only the chosen instances"

    name = models.CharField(max_length=MAX_NAME_LENGTH)
    # The unique index finds a key in O(1), whatever their number.
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    hint = models.CharField(
        max_length=12, editable=False, help_text="Last characters of the key, to tell keys apart."
    )
    user_id = models.CharField(max_length=50, default="system", editable=False)
    permission_mode = models.CharField(
        max_length=15, choices=PermissionMode.choices, default=PermissionMode.ALLOW_ALL
    )
    instances = models.ManyToManyField(
        Instance, through="KeyPermission", blank=True, related_name="keys"
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    is_blocked = models.BooleanField(
        db_default=False, help_text="A blocked key opens nothing until it is unblocked."
    )
    old_digest = models.BinaryField(max_length=32, null=True, editable=False)
    """Of the secret before the last rotation, which opens the same until ``old_valid_until``."""
    old_valid_until = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(permission_mode__in=["allow_all", "per_instance"]),
                name="key_permission_mode_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class KeyPermission(models.Model):
    """An instance that a per_instance key opens, with the key's rights on it: ``keys.rights``."""

    key = models.ForeignKey(
        InferenceKey,
        on_delete=models.CASCADE,
        related_name="permissions",
        db_column="inferencekey_id",
    )
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="+")
    # The database's defaults are the rights of keys from before there were any, and of rows that
    # the release before writes.
    can_start = models.BooleanField(db_default=True)
    can_evict = models.BooleanField(db_default=True)
    can_stop = models.BooleanField(db_default=False)

    class Meta:
        # The table that Django made for the relation, before it had rights.
        db_table = "keys_inferencekey_instances"
        unique_together = (("key", "instance"),)

    def __str__(self) -> str:
        return f"key {self.key_id} on instance {self.instance_id}"


class ImportedHash(models.Model):
    """Argon2id hash of a key of the Go program: how the key's first use here is recognised.

    Argon2id hashes can't be looked up by the key. Until the first use, ``InferenceKey.digest`` is
    random and opens nothing; the first use replaces the digest by the key's SHA-256. The row stays,
    without a key once the key is revoked, so that a second import brings no key twice or back.
    """

    argon2 = models.CharField(max_length=200, unique=True)
    key = models.OneToOneField(
        InferenceKey,
        null=True,
        on_delete=models.SET_NULL,
        related_name="imported",
        # The release before this table deletes keys without knowing of it.
        db_constraint=False,
    )
    recognised_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"imported key {self.key_id}"
