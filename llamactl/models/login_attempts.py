"""Failed logins, counted in the database, so that all web processes share the counts."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import F, Q

CLOCKS_APART = timedelta(minutes=1)
"""Web processes on several machines may differ so much."""


class LoginAttempts(models.Model):
    """Count of one subject's failed and unfinished logins since the first of them."""

    subject = models.CharField(max_length=64, primary_key=True)
    """SHA-256 of an address, an account or a pair of both: a name may have any length."""
    count = models.PositiveIntegerField(default=0)
    # The removal of old rows reads this index.
    began_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.count} since {self.began_at}"

    @classmethod
    def add(cls, subject: str, now: datetime, expired: datetime) -> LoginAttempts:
        """Count an attempt, and return the row; a count that began before ``expired`` is zeroed.

        So is one that began after ``now``: the clock was set back, and the count would last as long
        as that. Each step is one statement, so attempts at the same moment are all counted.
        """
        rows = cls.objects.filter(subject=subject)
        cls.objects.get_or_create(subject=subject, defaults={"began_at": now})
        is_over = Q(began_at__lte=expired) | Q(began_at__gt=now + CLOCKS_APART)
        rows.filter(is_over).update(count=0, began_at=now)
        rows.update(count=F("count") + 1)
        return rows.get()

    @classmethod
    def subtract(cls, subject: str) -> None:
        """Take back an attempt that succeeded."""
        cls.objects.filter(subject=subject, count__gt=0).update(count=F("count") - 1)
