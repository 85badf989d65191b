"""Tables of usage: sums of each key and instance, by hour and by day."""

from __future__ import annotations

from django.db import models

MANAGEMENT_HOLDER = 0
"""``key_id`` of requests with a management key; the database's own ids begin at 1."""
ANONYMOUS_HOLDER = -1
"""``key_id`` of requests without a key, where the configuration needs none."""
MAX_INSTANCE_NAME = 50
SUMS = (
    "requests",
    "errors",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "estimated_tokens",
    "drafted_tokens",
    "accepted_tokens",
    "compute_seconds",
    "waiting_seconds",
)
"""The columns that are summed, in the order of the statements that write them."""


class Usage(models.Model):
    """Sums of one key and instance over a period (UTC).

    Rows outlive their key and their instance: neither is a foreign key. Day rows are written beside
    the hour rows, so that nothing has to be rolled up later, and a query over a year reads days.
    """

    start = models.BigIntegerField()
    """Unix seconds: a database truncates an integer to a day in all dialects alike."""
    key_id = models.BigIntegerField()
    instance = models.CharField(max_length=MAX_INSTANCE_NAME)
    """Name of the instance; empty for a request that was refused before its instance was known."""
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    estimated_tokens = models.BigIntegerField()
    """The part of the prompt and completion tokens that no figures of a backend gave."""
    drafted_tokens = models.BigIntegerField()
    accepted_tokens = models.BigIntegerField()
    compute_seconds = models.FloatField()
    waiting_seconds = models.FloatField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.key_id} {self.instance} {self.start}"


class UsageHour(Usage):
    """Sums of an hour; kept for 31 days."""

    class Meta:
        constraints = [
            # The batches' upserts and every report by period read this index.
            models.UniqueConstraint(fields=["start", "key_id", "instance"], name="usage_hour"),
        ]


class UsageDay(Usage):
    """Sums of a day; kept for ``usage.retention_days``."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["start", "key_id", "instance"], name="usage_day"),
        ]


class RequestRecord(models.Model):
    """One of the last requests, without its contents; ``requests.keep`` of them are kept.

    The primary key is the order of the list; it needs no other index for ten thousand rows.
    """

    request_id = models.CharField(max_length=32)
    client_request_id = models.CharField(max_length=128)
    ended_at = models.FloatField()
    """Unix seconds."""
    key_id = models.BigIntegerField()
    instance = models.CharField(max_length=MAX_INSTANCE_NAME)
    path = models.CharField(max_length=200)
    """Path of the request to the backend, without its query, which may hold a key."""
    status = models.IntegerField()
    outcome = models.CharField(max_length=20)
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    drafted_tokens = models.BigIntegerField()
    accepted_tokens = models.BigIntegerField()
    is_estimated = models.BooleanField()
    queue_seconds = models.FloatField()
    load_seconds = models.FloatField()
    first_byte_seconds = models.FloatField(null=True)
    total_seconds = models.FloatField()
    request_bytes = models.BigIntegerField()
    response_bytes = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.request_id} {self.instance} {self.status}"


class UsageWriter(models.Model):
    """The last batch of one web process that is in the database.

    A batch whose commit was not confirmed is written again; by its number it counts once.
    """

    id = models.CharField(primary_key=True, max_length=32)
    batch = models.BigIntegerField()
    written_at = models.BigIntegerField()
    """Unix seconds."""

    def __str__(self) -> str:
        return f"{self.id} {self.batch}"
